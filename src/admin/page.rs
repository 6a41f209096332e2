//! The status page: in, a path; out, one of the files that it is made of, and the fields that guard it.
//!
//! No build step and nothing from elsewhere: the files are in the binary as they are written. What the page shows
//! comes from clients, too (tools, paths), so it is put in as text and never as markup, which the policy enforces:
//! a browser that knows trusted types refuses every way to write markup from a script.

use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::Reply;

/// Path, type, content.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("page/chart.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The file of a path.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (_, kind, text) = FILES.into_iter().find(|(known, ..)| *known == path)?;
    Some(Reply { kind, ..Reply::words(200, text) })
}

/// On every answer, whatever it is: other sites can neither frame nor load it.
pub(super) fn guards() -> [(HeaderName, HeaderValue); 6] {
    let value = HeaderValue::from_static;
    [
        (CONTENT_SECURITY_POLICY, value(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        (X_FRAME_OPTIONS, value("DENY")),
        (REFERRER_POLICY, value("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), value("same-origin")),
        (HeaderName::from_static("cross-origin-opener-policy"), value("same-origin")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_markup() {
        for (path, _, text) in FILES {
            let own = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http://", "https://", "//cdn", "@import", "url("] {
                assert!(!own.contains(foreign), "{path} has {foreign}");
            }
            for written in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(written), "{path} has {written}");
            }
        }
    }

    #[test]
    fn what_the_page_asks_for_is_served() {
        let page = FILES[0].2;
        for (path, ..) in FILES.into_iter().skip(1) {
            let named =
                FILES.iter().any(|(_, _, text)| text.contains(path.trim_start_matches('/')));
            assert!(named, "nothing names {path}");
        }
        assert!(!page.contains("<style") && !page.contains(" style="), "the policy refuses it");
        assert!(!page.contains("onload") && !page.contains("onclick"), "the policy refuses it");
        assert!(page.matches("<script").count() == 1 && page.contains("src=\"/page.js\""));
    }
}
