//! What a refusal tells an OAuth client (RFC 6750 §3, RFC 9728 §5.1): in, an error and scopes; out, the
//! value of `WWW-Authenticate`.

use http::HeaderValue;

use super::super::quoted;

/// What every challenge of a resource says.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// Needed for the route.
    pub scopes: Vec<String>,
    /// Where the resource's metadata are.
    pub metadata_url: String,
}

/// An error code of RFC 6750 §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// 400.
    InvalidRequest,
    /// 401.
    InvalidToken,
    /// 403.
    InsufficientScope,
}

impl Challenge {
    /// For a request without credentials: where to get some, and no error (RFC 6750 §3.1).
    pub fn plain(&self) -> HeaderValue {
        self.write(None, &self.scopes)
    }

    /// For a bad token or a bad request.
    pub fn error(&self, error: Error, says: &str) -> HeaderValue {
        self.write(Some((error, says)), &self.scopes)
    }

    /// For a good token that lacks scopes; `all` are those that the operation needs.
    pub fn scopes(&self, all: &[String]) -> HeaderValue {
        self.write(Some((Error::InsufficientScope, "The token lacks a scope")), all)
    }

    fn write(&self, error: Option<(Error, &str)>, scopes: &[String]) -> HeaderValue {
        let mut parts = Vec::new();
        if let Some((error, says)) = error {
            parts.push(part("error", error.code()));
            parts.push(part("error_description", says));
        }
        if !scopes.is_empty() {
            parts.push(part("scope", &scopes.join(" ")));
        }
        parts.push(part("resource_metadata", &self.metadata_url));
        let text = format!("Bearer {}", parts.join(", "));
        // printable ASCII is always a value
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

/// A challenge without an error as one with it.
pub fn with_error(plain: &HeaderValue, error: Error, says: &str) -> HeaderValue {
    let text = plain.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let Some(rest) = text else { return plain.clone() };
    let (error, says) = (part("error", error.code()), part("error_description", says));
    HeaderValue::try_from(format!("Bearer {error}, {says}, {rest}")).unwrap_or(plain.clone())
}

impl Error {
    fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// A parameter (RFC 9110 §11.2): clients look for it by simple means, so only printable ASCII is in it.
fn part(name: &str, value: &str) -> String {
    let printable: String =
        value.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
    format!("{name}={}", quoted(&printable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stand_before_scopes_and_metadata() {
        let challenge = Challenge {
            scopes: vec!["mcp:read".into(), "b".into()],
            metadata_url: "https://h/.well-known/oauth-protected-resource/x".into(),
        };
        let tail = r#"scope="mcp:read b", resource_metadata="https://h/.well-known/oauth-protected-resource/x""#;
        assert_eq!(challenge.plain(), format!("Bearer {tail}"));
        assert_eq!(
            challenge.error(Error::InvalidToken, "It \"is\" ä\r\nbad"),
            format!(
                r#"Bearer error="invalid_token", error_description="It \"is\" ???bad", {tail}"#
            )
        );
        let more = challenge.scopes(&["mcp:read".to_owned(), "b".to_owned(), "c".to_owned()]);
        let more = more.to_str().unwrap();
        assert!(
            more.starts_with(r#"Bearer error="insufficient_scope", error_description=""#),
            "{more}"
        );
        assert!(more.contains(r#"scope="mcp:read b c", resource_metadata="#), "{more}");
        let none = Challenge { scopes: vec![], metadata_url: "https://h".into() };
        assert_eq!(none.plain(), r#"Bearer resource_metadata="https://h""#);
    }
}
