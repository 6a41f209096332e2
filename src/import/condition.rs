//! `if`, `return` and `rewrite`: in, their words; out, what they do, where that is something we know.

use sha2::{Digest, Sha256};

use super::nginx::Directive;
use crate::base::text::hex;

/// What an `if` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum If {
    /// Refuses requests whose header is not this value.
    ApiKey(ApiKey),
    /// Sends one host to https, as certbot writes it.
    HostToHttps { host: String, to: ToHttps },
    /// Sends what came in plain to https.
    PlainToHttps(ToHttps),
    /// Answers preflights of CORS, which the edge does by itself.
    Preflight,
    /// Something else.
    Other,
}

/// A header with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiKey {
    /// As fields are written; `Authorization` means Bearer.
    pub(super) header: String,
    /// Of the key, in hex.
    pub(super) sha256: String,
}

/// A redirect to https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToHttps {
    /// The host where it is written out; a variable otherwise means the request's own.
    pub(super) host: Option<String>,
    /// The port, where it is not 443.
    pub(super) port: Option<u16>,
    /// Whether path and query stay.
    pub(super) keeps_path: bool,
}

/// What a `return` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Return {
    ToHttps(ToHttps),
    /// A redirect elsewhere.
    Redirect,
    /// A status, and whether it says that all is well.
    Status {
        well: bool,
    },
}

/// Reads an `if`.
pub(super) fn condition(directive: &Directive) -> If {
    let Some((variable, operator, value)) = comparison(directive) else { return If::Other };
    let [only] = directive.inner() else {
        return if is_preflight(&variable, &operator, &value, directive) {
            If::Preflight
        } else {
            If::Other
        };
    };
    if is_preflight(&variable, &operator, &value, directive) {
        return If::Preflight;
    }
    let does = match only.name.as_str() {
        "return" => returns(only),
        "rewrite" => rewrites(only).map(Return::ToHttps),
        _ => None,
    };
    match (does, variable.as_str(), operator.as_str(), value.as_str()) {
        (Some(Return::ToHttps(to)), "$host" | "$http_host", "=", host) if !host.is_empty() => {
            If::HostToHttps { host: host.to_ascii_lowercase(), to }
        }
        (Some(Return::ToHttps(to)), "$scheme", "=", "http")
        | (Some(Return::ToHttps(to)), "$scheme", "!=", "https")
        | (Some(Return::ToHttps(to)), "$https", "=", "")
        | (Some(Return::ToHttps(to)), "$https", "!=", "on")
        | (Some(Return::ToHttps(to)), "$server_port", "=", "80") => If::PlainToHttps(to),
        (Some(Return::Status { well: false }), variable, "!=", value) if !value.contains('$') => {
            api_key(variable, value).map_or(If::Other, If::ApiKey)
        }
        _ => If::Other,
    }
}

/// `($a = b)` however it is cut into words.
fn comparison(directive: &Directive) -> Option<(String, String, String)> {
    let mut words: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    let first = words.first_mut()?;
    *first = first.strip_prefix('(')?;
    if words.last() == Some(&")") {
        words.pop();
    } else {
        let last = words.last_mut()?;
        *last = last.strip_suffix(')')?;
    }
    words.retain({
        let mut first = true;
        move |word| !std::mem::take(&mut first) || !word.is_empty()
    });
    match words.as_slice() {
        [variable, operator @ ("=" | "!="), value] => {
            Some(((*variable).to_owned(), (*operator).to_owned(), (*value).to_owned()))
        }
        _ => None,
    }
}

/// `if ($request_method = OPTIONS) { add_header …; return 204; }`
fn is_preflight(variable: &str, operator: &str, value: &str, directive: &Directive) -> bool {
    let inner = directive.inner();
    let harmless = |d: &Directive| match d.name.as_str() {
        "add_header" => true,
        "return" => d.arg(0) == "204" || d.arg(0) == "200",
        _ => false,
    };
    (variable, operator, value) == ("$request_method", "=", "OPTIONS")
        && inner.iter().all(harmless)
        && inner.iter().any(|d| d.name == "return")
}

fn api_key(variable: &str, value: &str) -> Option<ApiKey> {
    let name = variable.strip_prefix("$http_")?;
    let (header, key) = match name {
        "authorization" => ("Authorization".to_owned(), value.strip_prefix("Bearer ")?),
        // conditions about these are no keys
        "host" | "origin" | "referer" | "user_agent" | "upgrade" | "cookie"
        | "x_forwarded_proto" => return None,
        _ => (field_name(name), value),
    };
    let good = !key.is_empty() && key.bytes().all(|b| (b'!'..=b'~').contains(&b));
    good.then(|| ApiKey { header, sha256: hex(&Sha256::digest(key.as_bytes())) })
}

/// `x_api_key` as `X-Api-Key`.
pub(super) fn field_name(variable: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    variable.split('_').map(part).collect::<Vec<_>>().join("-")
}

/// Reads a `return`; `None` for what is none of nginx's forms.
pub(super) fn returns(directive: &Directive) -> Option<Return> {
    let (status, text) = match directive.args.as_slice() {
        [url] if url.contains("://") => (302, url.as_str()),
        [status] => (status.parse().ok()?, ""),
        [status, text] => (status.parse().ok()?, text.as_str()),
        _ => return None,
    };
    match status {
        301 | 302 | 303 | 307 | 308 => {
            Some(to_https(text).map_or(Return::Redirect, Return::ToHttps))
        }
        200..=299 => Some(Return::Status { well: true }),
        400..=599 => Some(Return::Status { well: false }),
        _ => None,
    }
}

/// A `rewrite` of everything to https.
pub(super) fn rewrites(directive: &Directive) -> Option<ToHttps> {
    let everything = ["^", "^(.*)$", "^(.*)", "^/(.*)$", "^/(.*)", "^.*$", "(.*)", ".*", "^.*"];
    if !everything.contains(&directive.arg(0)) {
        return None;
    }
    let target = directive.arg(1);
    let target = target.strip_suffix('?').unwrap_or(target);
    let target = target.strip_suffix("/$1").or_else(|| target.strip_suffix("$1"));
    match target {
        Some(before) => to_https(&format!("{before}$request_uri")),
        None => to_https(directive.arg(1).trim_end_matches('?')),
    }
}

fn to_https(url: &str) -> Option<ToHttps> {
    let rest = url.strip_prefix("https://")?;
    let end = rest.find("$request_uri").or_else(|| rest.find("$uri")).or_else(|| rest.find('/'));
    let (authority, path) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
    let keeps_path = matches!(path, "$request_uri" | "$uri$is_args$args" | "$uri");
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    let host = match host {
        "$host" | "$http_host" | "$server_name" | "${host}" | "${http_host}" | "${server_name}" => {
            None
        }
        name if name.contains('$') || name.is_empty() => return None,
        name => Some(name.to_ascii_lowercase()),
    };
    Some(ToHttps { host, port: port.filter(|port| *port != 443), keeps_path })
}

#[cfg(test)]
mod tests {
    use super::super::nginx::read_text;
    use super::*;

    fn first(text: &str) -> Directive {
        read_text(text.as_bytes(), "n").unwrap().directives.remove(0)
    }

    #[test]
    fn conditions_that_mean_something_here() {
        let to = ToHttps { host: None, port: None, keeps_path: true };
        let certbot = "if ($host = A.example) { return 301 https://$host$request_uri; }";
        assert_eq!(
            condition(&first(certbot)),
            If::HostToHttps { host: "a.example".into(), to: to.clone() }
        );
        for plain in [
            "if ($scheme = http) { return 301 https://$host$request_uri; }",
            "if ($scheme != \"https\") { rewrite ^(.*)$ https://$host$1 permanent; }",
            "if ( $https = \"\" ) { return 308 https://$server_name$request_uri; }",
        ] {
            assert_eq!(condition(&first(plain)), If::PlainToHttps(to.clone()), "{plain}");
        }
        for key in [
            "if ($http_x_api_key != \"hunter2\") { return 401; }",
            "if ($http_x_api_key != hunter2) { return 403 \"no\"; }",
        ] {
            let If::ApiKey(key) = condition(&first(key)) else { panic!("{key}") };
            assert_eq!(key.header, "X-Api-Key");
            // printf hunter2 | sha256sum
            assert!(key.sha256.starts_with("f52fbd32b2b3b86f"), "{}", key.sha256);
        }
        let bearer = "if ($http_authorization != \"Bearer hunter2\") { return 401; }";
        assert!(
            matches!(condition(&first(bearer)), If::ApiKey(key) if key.header == "Authorization")
        );
        let preflight = "if ($request_method = 'OPTIONS') { add_header A b; return 204; }";
        assert_eq!(condition(&first(preflight)), If::Preflight);
    }

    #[test]
    fn other_conditions_are_not_guessed() {
        for other in [
            "if ($http_x_api_key = \"hunter2\") { return 401; }",
            "if ($http_x_api_key != \"hunter2\") { return 200; }",
            "if ($http_x_api_key != \"hunter2\") { set $a b; return 401; }",
            "if ($http_x_api_key != \"\") { return 401; }",
            "if ($http_x_api_key != $key) { return 401; }",
            "if ($http_x_api_key !~ x) { return 401; }",
            "if ($http_user_agent != x) { return 403; }",
            "if ($http_authorization != \"Basic x\") { return 401; }",
            "if ($bad) { return 403; }",
            "if ($host != a) { return 444; }",
            "if ($host = a) { return 301 http://$host$request_uri; }",
            "if ($request_method = POST) { return 204; }",
            "if (-f /x) { return 503; }",
            "if $a = b { return 403; }",
        ] {
            assert_eq!(condition(&first(other)), If::Other, "{other}");
        }
    }

    #[test]
    fn returns_are_told_apart() {
        let port = Return::ToHttps(ToHttps { host: None, port: Some(8443), keeps_path: true });
        assert_eq!(returns(&first("return 301 https://$host:8443$request_uri;")), Some(port));
        let named =
            Return::ToHttps(ToHttps { host: Some("a.b".into()), port: None, keeps_path: false });
        assert_eq!(returns(&first("return https://a.b/;")), Some(named));
        assert_eq!(returns(&first("return 301 http://x;")), Some(Return::Redirect));
        assert_eq!(
            returns(&first("return 301 https://$sub.x$request_uri;")),
            Some(Return::Redirect)
        );
        assert_eq!(returns(&first("return 200 ok;")), Some(Return::Status { well: true }));
        assert_eq!(returns(&first("return 444;")), Some(Return::Status { well: false }));
        for bad in ["return;", "return x;", "return 100;", "return 1 2 3;"] {
            assert_eq!(returns(&first(bad)), None, "{bad}");
        }
    }
}
