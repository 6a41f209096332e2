//! The rewriter of `endpoint` events and the mapping of their URLs. In: any stream, however split; out: a path
//! of ours, and nothing else has changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::route::settings::PathMatch;
use mcp_edge::stream::endpoint::{EndpointRewriter, Refused};
use mcp_edge::stream::endpoint_url::{
    Mapped, Site, map_endpoint, map_location, take_token, with_token,
};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = (usize::from(input.0) + 1, input.1);
    let whole = run(&[stream]);
    assert_eq!(whole, run(&stream.chunks(size).collect::<Vec<_>>()));
    if let Ok((out, None)) = &whole {
        assert_eq!(out, stream);
    }
});

fn run(chunks: &[&[u8]]) -> Result<(Vec<u8>, Option<String>), Refused> {
    let (mut rewriter, mut out, mut mapped) = (EndpointRewriter::new(), Vec::new(), None);
    for chunk in chunks {
        rewriter.push(chunk, &mut out, &mut |text| {
            assert!(mapped.is_none(), "one event is rewritten");
            mapped = map(text);
            mapped.clone()
        })?;
    }
    rewriter.finish(&mut out);
    Ok((out, mapped))
}

fn map(text: &str) -> Option<String> {
    let path = PathMatch::Prefix("/aws".to_owned());
    let hosts = ["127.0.0.1:8000"];
    let site = Site {
        hosts: &hosts,
        public: "mcp.example.com",
        path: &path,
        rewrite: Some("/mcp"),
        request_path: "/mcp/sse",
    };
    if let Some(location) = map_location(text, &site) {
        assert!(location.starts_with('/') && !location.starts_with("//"), "{location}");
    }
    let public = match map_endpoint(text, &site)? {
        Mapped::Public(public) => public,
        Mapped::Sealed(inner) => {
            assert!(inner.starts_with('/'));
            "/aws/sse".to_owned()
        }
    };
    assert!(
        public == "/aws" || public.starts_with("/aws/") || public.starts_with("/aws?"),
        "{public}"
    );
    let with = with_token(&public, "T");
    let (_, query) = with.split_once('?')?;
    let (token, rest) = take_token(query)?;
    assert_eq!((token, rest.as_deref()), ("T", public.split_once('?').map(|(_, query)| query)));
    Some(with)
}
