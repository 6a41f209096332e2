//! Why a request is refused: in, what a stage found; out, a `Denial`, which `proxy::respond` alone writes out.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::ruling::Ruling;

/// A refusal. `detail` goes to the log and never to the client.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Who is at fault; decides the status.
    pub reason: Reason,
    /// Stable name of the cause for logs and metrics, such as `route.no_host`.
    pub code: &'static str,
    /// What the client may read: no internal names, addresses or versions.
    pub message: Cow<'static, str>,
    /// The JSON-RPC error code of the body.
    pub rpc_code: i64,
    /// Seconds after which a retry makes sense, sent as `Retry-After`.
    pub retry_after: Option<u32>,
    /// Further header fields, such as challenges.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// For the log only.
    pub detail: Cow<'static, str>,
    /// The rule that has refused it, for the audit log only.
    pub rule: Option<Ruling>,
    /// Whether the connection cannot carry another request (framing is lost).
    pub close: bool,
}

/// The closed set of faults. A new feature adds a `code`, never a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 400: the bytes are not a request we can stand behind.
    Malformed,
    /// 401: no or bad credentials.
    Unauthenticated,
    /// 403: known, but not allowed (also a foreign `Origin`).
    Forbidden,
    /// 404: no such route or host.
    NoRoute,
    /// 404 in the shape that makes MCP clients start a new session.
    SessionGone,
    /// 405.
    MethodNotAllowed,
    /// 408: head or body took too long.
    TooSlow,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 414: the request target is too long.
    UriTooLong,
    /// 415: the body's coding or charset cannot be read.
    Unsupported,
    /// 417: an `Expect` that we do not know.
    ExpectationFailed,
    /// 421: the host is not served here.
    WrongHost,
    /// 429: over a limit of the caller.
    Limited,
    /// 431: the header section is too large.
    HeadTooLarge,
    /// 501: a transfer coding or method that we do not implement.
    NotImplemented,
    /// 502: the backend failed or spoke rubbish.
    UpstreamFailed,
    /// 503: the edge itself is full or draining.
    Busy,
    /// 503: no replica can be reached.
    NoBackend,
    /// 504: the backend did not answer in time.
    UpstreamTimeout,
    /// 505.
    VersionNotSupported,
    /// 500: our fault.
    Internal,
}

/// JSON-RPC "parse error".
pub const RPC_PARSE: i64 = -32700;
/// JSON-RPC "invalid request".
pub const RPC_INVALID_REQUEST: i64 = -32600;
/// JSON-RPC "invalid params".
pub const RPC_INVALID_PARAMS: i64 = -32602;
/// JSON-RPC "internal error".
pub const RPC_INTERNAL: i64 = -32603;
/// JSON-RPC server error, implementation-defined; what the SDKs themselves answer with.
pub const RPC_SERVER: i64 = -32000;
/// What the TypeScript SDK answers for an unknown session.
pub const RPC_SESSION: i64 = -32001;
/// MCP 2026-07-28: a mirrored header differs from the body. Never used for anything else.
pub const RPC_HEADER_MISMATCH: i64 = -32020;

impl Denial {
    /// A refusal with the JSON-RPC code that fits its reason and no extras.
    pub fn new(reason: Reason, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let rpc_code = match reason {
            Reason::Malformed | Reason::Unsupported => RPC_INVALID_REQUEST,
            Reason::SessionGone => RPC_SESSION,
            Reason::Internal | Reason::UpstreamFailed | Reason::UpstreamTimeout => RPC_INTERNAL,
            _ => RPC_SERVER,
        };
        let detail = Cow::Borrowed("");
        Self {
            reason,
            code,
            message: message.into(),
            rpc_code,
            retry_after: None,
            fields: Vec::new(),
            detail,
            rule: None,
            close: false,
        }
    }

    /// Adds what the log should say.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds the rule that refuses it.
    #[must_use]
    pub fn by(mut self, rule: Ruling) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Sets the JSON-RPC error code.
    #[must_use]
    pub fn rpc(mut self, code: i64) -> Self {
        self.rpc_code = code;
        self
    }

    /// Sets `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The connection ends after this answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

impl Reason {
    /// The HTTP status (RFC 9110 §15; RFC 6585 for 429 and 431).
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NoRoute | Self::SessionGone => 404,
            Self::MethodNotAllowed => 405,
            Self::TooSlow => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Unsupported => 415,
            Self::ExpectationFailed => 417,
            Self::WrongHost => 421,
            Self::Limited => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::UpstreamFailed => 502,
            Self::Busy | Self::NoBackend => 503,
            Self::UpstreamTimeout => 504,
            Self::VersionNotSupported => 505,
        }
    }
}
