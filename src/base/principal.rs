//! Who the caller is, once `auth` has said so: the value that sessions are bound to.

/// A caller. Only `auth` makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Name of the method that admitted the caller, such as `anonymous` or `basic`.
    pub method: &'static str,
    /// Who vouches for the subject; empty where the method has no such thing.
    pub issuer: String,
    /// The caller's name at that issuer; empty for `anonymous`.
    pub subject: String,
}

impl Principal {
    /// The caller of a route that says `auth: [ anonymous ]`.
    pub fn anonymous() -> Self {
        Self { method: "anonymous", issuer: String::new(), subject: String::new() }
    }

    /// Whether nothing tells this caller from another.
    pub fn is_anonymous(&self) -> bool {
        self.method == "anonymous"
    }

    /// An unambiguous byte form (fields are length-prefixed), bound into session ids.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.issuer.len() + self.subject.len());
        for field in [self.method, &self.issuer, &self.subject] {
            out.extend_from_slice(&(field.len() as u64).to_be_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        out
    }
}
