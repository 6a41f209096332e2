//! Which era is it, and do head and body agree? In: a head and its scanned body; out: a [`Call`].
//!
//! Every request says its era itself: by `MCP-Protocol-Version`, and since 2026-07-28 also by
//! `params._meta`. Python servers go by the header and TypeScript ones by the body, so a
//! disagreement is refused here as both would (MCP 2026-07-28, basic/transports/streamable-http).

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use super::envelope::{Batch, Kind, Message, Scan};
use crate::base::denial::{
    Denial, RPC_HEADER_MISMATCH, RPC_INVALID_PARAMS, RPC_INVALID_REQUEST, Reason,
};
use crate::base::head::Head;
use crate::base::names::{
    MCP_METHOD as METHOD, MCP_NAME as NAME, MCP_PROTOCOL_VERSION as VERSION,
    MCP_SESSION_ID as SESSION,
};

/// The revisions with an `initialize` handshake. Every other version is of the era after them.
const LEGACY_VERSIONS: [&str; 5] =
    ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// What a request asks for, as far as the edge acts upon it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Decides what binds the request to a replica.
    pub era: Era,
    /// The JSON-RPC id as JSON text, for refusals.
    pub rpc_id: Option<Arc<str>>,
    /// The JSON-RPC method of a single message.
    pub rpc_method: Option<Cow<'static, str>>,
    /// The tool, prompt, resource URI or task id.
    pub name: Option<Arc<str>>,
    /// A session may begin with the answer: an `initialize` request, alone or in a batch.
    pub initialize: bool,
}

/// Which kind of MCP a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: bound by a session id.
    Legacy,
    /// 2026-07-28 and later: no sessions; `Mcp-Session-Id` means nothing.
    Modern,
    /// Nothing in it speaks of MCP.
    None,
}

/// Whether a body of this `Content-Type` is read whole and scanned. Parameters are ignored, but a
/// value that mentions `application/json` anywhere counts, since SDK servers take it for JSON.
pub fn is_json(content_type: &str) -> bool {
    if content_type == "application/json" {
        return true;
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let mentions = |part: &[u8]| part.eq_ignore_ascii_case(b"application/json");
    content_type.as_bytes().windows(16).any(mentions)
        || essence.len() > 5 && essence.is_char_boundary(essence.len() - 5) && {
            let (_, suffix) = essence.split_at(essence.len() - 5);
            suffix.eq_ignore_ascii_case("+json")
        }
}

/// Says what a request asks for. `scan` is `None` when it has no body, or one that is not read
/// whole; only bodies of POSTs count.
///
/// # Errors
/// 400 with the JSON-RPC code that SDK servers give: -32020 when header and body disagree, -32602
/// when a request of the new era lacks its version in `_meta`, -32600 for doubled keys and for
/// batches in the new era. The id to echo is `Scan::id`.
pub fn classify(head: &Head, scan: Option<&Scan>) -> Result<Call, Denial> {
    let stated = Stated::of(head)?;
    match scan {
        Some(Scan::Single(message)) if head.method == http::Method::POST => {
            single(head, stated, message)
        }
        Some(Scan::Batch(batch)) if head.method == http::Method::POST => batch_of(stated, *batch),
        _ => Ok(Call::nameless(stated.without_body(head))),
    }
}

/// What the version header says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stated<'a> {
    Nothing,
    Legacy,
    /// As it was sent, without white space around it.
    Modern(&'a [u8]),
}

impl<'a> Stated<'a> {
    fn of(head: &'a Head) -> Result<Self, Denial> {
        let Some(value) = once(head, VERSION)? else {
            return Ok(Self::Nothing);
        };
        let legacy = LEGACY_VERSIONS.iter().any(|version| version.as_bytes() == value);
        Ok(if legacy { Self::Legacy } else { Self::Modern(value) })
    }

    fn without_body(self, head: &Head) -> Era {
        match self {
            Self::Modern(_) => Era::Modern,
            Self::Legacy => Era::Legacy,
            // The old transport and 2025-03-26 have no version header.
            Self::Nothing if head.headers.contains_key(SESSION) || takes_events(head) => {
                Era::Legacy
            }
            Self::Nothing => Era::None,
        }
    }
}

fn single(head: &Head, stated: Stated<'_>, message: &Message) -> Result<Call, Denial> {
    if message.duplicate {
        return Err(doubled_key());
    }
    let era = era_of(stated, message)?;
    if era == Era::Modern {
        check_mirrors(head, message)?;
    }
    Ok(Call {
        era,
        rpc_id: message.id.clone(),
        rpc_method: message.method.clone(),
        name: message.name.clone(),
        initialize: era == Era::Legacy
            && message.kind == Kind::Request
            && message.method.as_deref() == Some("initialize"),
    })
}

fn era_of(stated: Stated<'_>, message: &Message) -> Result<Era, Denial> {
    if message.bad_version {
        return Err(bad_meta("The protocol version in params._meta must be a string"));
    }
    let claimed = message.protocol_version.as_deref();
    match (stated, claimed) {
        (Stated::Modern(header), Some(body)) if header == body.as_bytes() => Ok(Era::Modern),
        (Stated::Modern(_), Some(_)) => Err(version_mismatch()),
        (Stated::Modern(_), None) if message.kind == Kind::Request => {
            Err(bad_meta("params._meta must name the protocol version"))
        }
        (Stated::Modern(_), None) => Ok(Era::Modern),
        (_, None) => Ok(Era::Legacy),
        (_, Some(body)) if LEGACY_VERSIONS.contains(&body) => Ok(Era::Legacy),
        // The header is required of requests only.
        (Stated::Nothing, Some(_)) if message.kind != Kind::Request => Ok(Era::Modern),
        (_, Some(_)) => Err(version_mismatch()),
    }
}

/// Checks `Mcp-Method` and `Mcp-Name` against the body. `Mcp-Param-*` only the server can check:
/// the tool's schema says what they mirror.
fn check_mirrors(head: &Head, message: &Message) -> Result<(), Denial> {
    let (method, name) = (once(head, METHOD)?, once(head, NAME)?);
    let required = message.kind == Kind::Request;
    match (method, message.method.as_deref()) {
        (None, _) if !required => {}
        (Some(header), Some(body)) if header == body.as_bytes() => {}
        _ => return Err(mismatch("Mcp-Method does not match the method of the body")),
    }
    let mirrored =
        matches!(message.method.as_deref(), Some("tools/call" | "prompts/get" | "resources/read"));
    if !required || !mirrored {
        return Ok(());
    }
    // Without a name in the body there is nothing to mirror, and the server says what is missing.
    let unequal = message
        .name
        .as_deref()
        .is_some_and(|body| name.and_then(decode).is_none_or(|header| *header != *body.as_bytes()));
    if unequal || message.unreadable {
        return Err(mismatch("Mcp-Name does not match the name or URI of the body"));
    }
    Ok(())
}

fn batch_of(stated: Stated<'_>, batch: Batch) -> Result<Call, Denial> {
    if batch.duplicate {
        return Err(doubled_key());
    }
    if batch.versioned || matches!(stated, Stated::Modern(_)) {
        let message = "This protocol version has no batches";
        return Err(
            Denial::new(Reason::Malformed, "inspect.batch", message).rpc(RPC_INVALID_REQUEST)
        );
    }
    Ok(Call { initialize: batch.initialize, ..Call::nameless(Era::Legacy) })
}

impl Call {
    fn nameless(era: Era) -> Self {
        Self { era, rpc_id: None, rpc_method: None, name: None, initialize: false }
    }
}

fn takes_events(head: &Head) -> bool {
    let is_events = |part: &[u8]| part.eq_ignore_ascii_case(b"text/event-stream");
    head.headers
        .get_all(http::header::ACCEPT)
        .iter()
        .any(|v| v.as_bytes().windows(17).any(is_events))
}

/// A header that may stand only once: readers of the first and of the last one would disagree.
fn once(head: &Head, name: HeaderName) -> Result<Option<&[u8]>, Denial> {
    let mut values = head.headers.get_all(name).iter();
    let first = values.next().map(|value| trim(value.as_bytes()));
    if values.next().is_some() {
        return Err(mismatch("An Mcp header stands twice"));
    }
    Ok(first)
}

/// Without the optional white space around a field's value (RFC 9110 §5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Undoes `=?base64?…?=` (MCP 2026-07-28, streamable-http, "Value Encoding"). `None` when that
/// holds no canonical base64.
fn decode(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    match inner {
        Some(encoded) => STANDARD.decode(encoded).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

fn mismatch(message: &'static str) -> Denial {
    Denial::new(Reason::Malformed, "inspect.header_mismatch", message).rpc(RPC_HEADER_MISMATCH)
}

fn version_mismatch() -> Denial {
    mismatch("MCP-Protocol-Version does not match the protocol version of the body")
}

fn bad_meta(message: &'static str) -> Denial {
    Denial::new(Reason::Malformed, "inspect.no_version", message).rpc(RPC_INVALID_PARAMS)
}

fn doubled_key() -> Denial {
    let message = "A key stands twice in the JSON-RPC message";
    Denial::new(Reason::Malformed, "inspect.duplicate_key", message).rpc(RPC_INVALID_REQUEST)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::super::envelope::scan;
    use super::*;
    use crate::base::head::Version;

    const V: &str = "2026-07-28";
    const VERSION: &str = "mcp-protocol-version";
    const METHOD: &str = "mcp-method";
    const NAME: &str = "mcp-name";
    const SESSION: &str = "mcp-session-id";

    fn head(method: Method, headers: &[(&str, &str)]) -> Head {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (path, authority) = ("/mcp".into(), "a.example".into());
        Head {
            method,
            path,
            query: None,
            authority,
            headers: map,
            version: Version::H11,
            websocket: false,
        }
    }

    fn post(headers: &[(&str, &str)], body: &str) -> Result<Call, i64> {
        let scan = scan(body.as_bytes());
        let got = classify(&head(Method::POST, headers), Some(&scan));
        got.map_err(|denial| {
            assert_eq!(denial.reason.status(), 400);
            denial.rpc_code
        })
    }

    fn era(headers: &[(&str, &str)], body: &str) -> Result<Era, i64> {
        post(headers, body).map(|call| call.era)
    }

    fn request(method: &str, version: Option<&str>, rest: &str) -> String {
        let meta = version.map_or_else(String::new, |v| {
            format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{v}"}}"#)
        });
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"x":1{rest}{meta}}}}}"#)
    }

    fn notification(version: Option<&str>) -> String {
        request("notifications/cancelled", version, "").replace(r#""id":7,"#, "")
    }

    #[test]
    fn eras_by_header_and_body() {
        let ping = |version| request("ping", version, "");
        let m = ("mcp-method", "ping");
        assert_eq!(era(&[], &ping(None)), Ok(Era::Legacy));
        for version in LEGACY_VERSIONS {
            assert_eq!(era(&[(VERSION, version)], &ping(None)), Ok(Era::Legacy));
            assert_eq!(era(&[], &ping(Some(version))), Ok(Era::Legacy));
        }
        assert_eq!(era(&[(VERSION, V), m], &ping(Some(V))), Ok(Era::Modern));
        assert_eq!(era(&[(VERSION, " 2026-07-28\t"), m], &ping(Some(V))), Ok(Era::Modern));
        assert_eq!(era(&[(VERSION, "2099-01-01"), m], &ping(Some("2099-01-01"))), Ok(Era::Modern));
        assert_eq!(era(&[], &ping(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, "2025-11-25"), m], &ping(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, "2099-01-01"), m], &ping(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, V), m], &ping(Some("2025-11-25"))), Err(-32020));
        assert_eq!(era(&[(VERSION, V), (VERSION, V), m], &ping(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, V), (VERSION, "2025-11-25")], &ping(None)), Err(-32020));
        assert_eq!(era(&[(VERSION, V), m], &ping(None)), Err(-32602));
        assert_eq!(era(&[(VERSION, ""), m], &ping(None)), Err(-32602));
        assert_eq!(era(&[(VERSION, "2025-06-18, 2025-06-18")], &ping(None)), Err(-32602));
        let number = ping(Some(V)).replace(r#""2026-07-28""#, "20260728");
        assert_eq!(era(&[(VERSION, V), m], &number), Err(-32602));
        assert_eq!(era(&[], &number), Err(-32602));
    }

    #[test]
    fn notifications_need_the_header_alone() {
        assert_eq!(era(&[(VERSION, V)], &notification(None)), Ok(Era::Modern));
        assert_eq!(era(&[(VERSION, V)], &notification(Some(V))), Ok(Era::Modern));
        assert_eq!(era(&[], &notification(Some(V))), Ok(Era::Modern));
        assert_eq!(era(&[], &notification(None)), Ok(Era::Legacy));
        assert_eq!(era(&[(VERSION, "2025-11-25")], &notification(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, "2099-01-01")], &notification(Some(V))), Err(-32020));
        assert_eq!(era(&[(VERSION, V), (METHOD, "ping")], &notification(None)), Err(-32020));
        let right = [(VERSION, V), (METHOD, "notifications/cancelled")];
        assert_eq!(era(&right, &notification(None)), Ok(Era::Modern));
    }

    #[test]
    fn the_method_is_mirrored_exactly_once() {
        let list = request("tools/list", Some(V), "");
        let with = |methods: &[&str]| {
            let mut headers = vec![(VERSION, V)];
            headers.extend(methods.iter().map(|m| (METHOD, *m)));
            era(&headers, &list)
        };
        assert_eq!(with(&["tools/list"]), Ok(Era::Modern));
        assert_eq!(with(&["  tools/list "]), Ok(Era::Modern));
        for wrong in
            [&["prompts/list"][..], &["TOOLS/LIST"], &[], &[""], &["tools/list", "tools/list"]]
        {
            assert_eq!(with(wrong), Err(-32020), "{wrong:?}");
        }
        // Spoofed mirrors mean nothing on older requests.
        let old = request("tools/list", None, "");
        assert_eq!(era(&[(METHOD, "ping"), (NAME, "a"), (NAME, "b")], &old), Ok(Era::Legacy));
    }

    #[test]
    fn the_name_is_mirrored() {
        let call = |method: &str, rest: &str, names: &[&str]| {
            let mut headers = vec![(VERSION, V), (METHOD, method)];
            headers.extend(names.iter().map(|n| (NAME, *n)));
            era(&headers, &request(method, Some(V), rest))
        };
        let echo = r#","name":"echo""#;
        for (method, rest) in
            [("tools/call", echo), ("prompts/get", echo), ("resources/read", r#","uri":"echo""#)]
        {
            assert_eq!(call(method, rest, &["echo"]), Ok(Era::Modern), "{method}");
            assert_eq!(call(method, rest, &[" echo  "]), Ok(Era::Modern), "{method}");
            assert_eq!(call(method, rest, &["=?base64?ZWNobw==?="]), Ok(Era::Modern), "{method}");
            for wrong in [
                &[][..],
                &["Echo"],
                &["echo", "echo"],
                &["=?base64?ZWNobw?="],
                &["=?base64?ZWNobx==?="],
                &["=?BASE64?ZWNobw==?="],
                &["=?base64?!?="],
                &["=?base64?="],
            ] {
                assert_eq!(call(method, rest, wrong), Err(-32020), "{method} {wrong:?}");
            }
        }
        let umlaut = r#","name":"ü""#;
        assert_eq!(call("tools/call", umlaut, &["=?base64?w7w=?="]), Ok(Era::Modern));
        let sentinel = r#","name":"=?base64?ZWNobw==?=""#;
        assert_eq!(call("tools/call", sentinel, &["=?base64?ZWNobw==?="]), Err(-32020));
        // Nothing to mirror: the server says what is missing.
        assert_eq!(call("tools/call", "", &[]), Ok(Era::Modern));
        assert_eq!(call("tools/call", r#","name":5"#, &[]), Ok(Era::Modern));
        assert_eq!(call("tools/call", r#","name":"\ud800""#, &["x"]), Err(-32020));
        assert_eq!(call("tools/list", "", &[]), Ok(Era::Modern));
        assert_eq!(call("tasks/get", r#","taskId":"t""#, &[]), Ok(Era::Modern));
    }

    #[test]
    fn params_headers_are_left_alone() {
        let headers =
            [(VERSION, V), (METHOD, "ping"), ("mcp-param-a", "1"), ("mcp-param-a", "=?base64?!?=")];
        assert_eq!(era(&headers, &request("ping", Some(V), "")), Ok(Era::Modern));
    }

    #[test]
    fn doubled_keys_are_refused_in_both_eras() {
        let old = request("tools/call", None, r#","name":"a","name":"b""#);
        assert_eq!(era(&[], &old), Err(-32600));
        let new = request("tools/call", Some(V), r#","name":"a","name":"b""#);
        assert_eq!(era(&[(VERSION, V), (METHOD, "tools/call"), (NAME, "b")], &new), Err(-32600));
        assert_eq!(era(&[], &format!("[{old}]")), Err(-32600));
    }

    #[test]
    fn batches_are_of_the_old_era() {
        let old = format!("[{}]", request("ping", None, ""));
        assert_eq!(era(&[], &old), Ok(Era::Legacy));
        assert_eq!(era(&[(VERSION, "2025-03-26")], &old), Ok(Era::Legacy));
        assert_eq!(era(&[(VERSION, V)], &old), Err(-32600));
        assert_eq!(era(&[], &format!("[{}]", request("ping", Some(V), ""))), Err(-32600));
        let initialize = format!("[{}]", request("initialize", None, ""));
        assert!(post(&[], &initialize).unwrap().initialize);
        assert!(!post(&[], &old).unwrap().initialize);
    }

    #[test]
    fn a_call_says_what_it_is() {
        let call = post(&[], &request("tools/call", None, r#","name":"echo""#)).unwrap();
        assert_eq!(call.rpc_id.as_deref(), Some("7"));
        assert_eq!(call.rpc_method.as_deref(), Some("tools/call"));
        assert_eq!(call.name.as_deref(), Some("echo"));
        assert!(!call.initialize);
        assert!(post(&[], &request("initialize", None, "")).unwrap().initialize);
        let noted = request("initialize", None, "").replace(r#""id":7,"#, "");
        assert!(!post(&[], &noted).unwrap().initialize);
        let modern = [(VERSION, V), (METHOD, "initialize")];
        assert!(!post(&modern, &request("initialize", Some(V), "")).unwrap().initialize);
        assert_eq!(post(&modern, &request("initialize", None, "")), Err(-32602));
        let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        assert_eq!(era(&[], answer), Ok(Era::Legacy));
        assert_eq!(era(&[(VERSION, V)], answer), Ok(Era::Modern));
    }

    #[test]
    fn bodies_of_other_kinds_pass() {
        for body in ["{}", "{", "", "\u{feff}{}"] {
            assert_eq!(era(&[], body), Ok(Era::None), "{body}");
            assert_eq!(era(&[(SESSION, "s")], body), Ok(Era::Legacy), "{body}");
            assert_eq!(era(&[(VERSION, "2025-06-18")], body), Ok(Era::Legacy), "{body}");
            assert_eq!(era(&[(VERSION, V)], body), Ok(Era::Modern), "{body}");
        }
    }

    #[test]
    fn without_a_body_the_header_decides() {
        let of = |method: Method, headers: &[(&str, &str)]| {
            classify(&head(method, headers), None).map(|call| call.era).map_err(|d| d.rpc_code)
        };
        assert_eq!(of(Method::GET, &[]), Ok(Era::None));
        assert_eq!(of(Method::GET, &[("accept", "a/b, Text/Event-Stream;q=1")]), Ok(Era::Legacy));
        assert_eq!(of(Method::GET, &[(SESSION, "s")]), Ok(Era::Legacy));
        assert_eq!(of(Method::DELETE, &[(SESSION, "s"), (VERSION, V)]), Ok(Era::Modern));
        assert_eq!(of(Method::GET, &[(VERSION, "2025-11-25")]), Ok(Era::Legacy));
        assert_eq!(of(Method::GET, &[(VERSION, V), (VERSION, V)]), Err(-32020));
        let body = scan(request("ping", Some(V), "").as_bytes());
        let got = classify(&head(Method::GET, &[(VERSION, "2025-11-25")]), Some(&body));
        assert_eq!(got.unwrap(), Call::nameless(Era::Legacy));
    }

    #[test]
    fn json_content_types() {
        for yes in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
            "application/vnd.x+JSON ;a=b",
            "text/plain, application/json",
        ] {
            assert!(is_json(yes), "{yes}");
        }
        for no in [
            "",
            "text/plain",
            "application/jso",
            "application/x-ndjson",
            "+json",
            "text/plain; a=b+json",
            "ü+jsoü",
        ] {
            assert!(!is_json(no), "{no}");
        }
    }
}
