//! Why a token is refused, a closed set: in, what is wrong with it; out, a code for the log and words for the
//! client.

/// What is wrong with a token. The words never hold anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Not three parts of base64url with JSON objects in the first two, or far too long.
    Format,
    /// An encrypted one (RFC 7516).
    Encrypted,
    /// A header field that must be understood (RFC 7515 §4.1.11) and is not, or an unencoded payload
    /// (RFC 7797).
    Critical,
    /// The algorithm is not allowed for its issuer.
    Algorithm,
    /// `typ` is not that of an access token.
    Type,
    /// An ID token, a refresh token and the like.
    Purpose,
    /// Nobody here trusts who has issued it, or nobody can say who that is.
    Issuer,
    /// Signed by a key that its issuer does not publish.
    Key,
    /// The signature does not fit.
    Signature,
    /// A claim has a type that it must not have.
    Claims,
    /// `exp` has passed.
    Expired,
    /// `nbf` is still to come.
    Early,
    /// It would never expire.
    NoExpiry,
    /// It is for another resource.
    Audience,
    /// It does not say who the caller is.
    Subject,
    /// It is bound to its sender (`cnf`), and was shown as if it were not.
    Bound,
    /// Its issuer says that it is not active.
    Inactive,
}

/// The code of [`Fault::Expired`].
pub(in crate::auth) const EXPIRED: &str = "auth.oauth.expired";

impl Fault {
    /// Stable name for logs and metrics.
    pub fn code(self) -> &'static str {
        self.both().0
    }

    /// What the client may read: printable ASCII without quotes (RFC 6750 §3).
    pub fn says(self) -> &'static str {
        self.both().1
    }

    fn both(self) -> (&'static str, &'static str) {
        match self {
            Self::Format => ("auth.oauth.format", "The token is not one that is accepted here"),
            Self::Encrypted => ("auth.oauth.encrypted", "Encrypted tokens are not accepted"),
            Self::Critical => {
                ("auth.oauth.critical", "The token uses an extension that is not known")
            }
            Self::Algorithm => ("auth.oauth.algorithm", "The token's algorithm is not accepted"),
            Self::Type => ("auth.oauth.type", "The token's type is not that of an access token"),
            Self::Purpose => ("auth.oauth.purpose", "The token is not an access token"),
            Self::Issuer => ("auth.oauth.issuer", "The token's issuer is not accepted"),
            Self::Key => ("auth.oauth.key", "The token's key is not known"),
            Self::Signature => ("auth.oauth.signature", "The token's signature does not fit"),
            Self::Claims => ("auth.oauth.claims", "The token's claims are malformed"),
            Self::Expired => (EXPIRED, "The token has expired"),
            Self::Early => ("auth.oauth.early", "The token is not valid yet"),
            Self::NoExpiry => ("auth.oauth.no_expiry", "The token does not expire"),
            Self::Audience => ("auth.oauth.audience", "The token is for another resource"),
            Self::Subject => ("auth.oauth.subject", "The token does not name its user"),
            Self::Bound => ("auth.oauth.bound", "The token is bound to its sender"),
            Self::Inactive => ("auth.oauth.inactive", "The token is not active"),
        }
    }
}
