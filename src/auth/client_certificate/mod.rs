//! `client_certificate`: in, a certificate that the listener has checked (`client_certificates`); out, the
//! caller whom it names.
//!
//! Where a certificate has several alternative names of a kind, the first that `allow` takes is the
//! caller's; without `allow`, the first of all.

use std::sync::Arc;

use http::HeaderValue;
use wildmatch::WildMatch;

use super::Method;
use crate::base::caller::{Authenticate, Client, ClientCertificate, Verdict};
use crate::base::compile::{Cx, Node};
use crate::base::denial::{Denial, Reason};
use crate::base::fields;
use crate::base::head::Head;
use crate::base::principal::Principal;

/// Its name in configs.
const NAME: &str = "client_certificate";
/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile };

/// Longer names are refused, in bytes: they go into header fields and logs.
const MAX_NAME: usize = 1024;

#[derive(Debug)]
struct Certificates {
    principal: Part,
    /// Empty where every certificate of the listener's CAs will do.
    allow: Vec<WildMatch>,
}

/// What of a certificate names its owner.
#[derive(Debug, Clone, Copy)]
enum Part {
    CommonName,
    Subject,
    Dns,
    Uri,
    Email,
}

const PARTS: &[(&str, Part)] = &[
    ("common_name", Part::CommonName),
    ("subject", Part::Subject),
    ("dns", Part::Dns),
    ("uri", Part::Uri),
    ("email", Part::Email),
];

fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let mut fields = cx.map(node?)?;
    let principal = fields.required(cx, "principal", part);
    let allow = fields.optional(cx, "allow", |n, cx| {
        cx.filled_list(n, |n, cx| cx.string(n).map(|pattern| WildMatch::new(&pattern)))
    });
    fields.finish(cx);
    Some(Arc::new(Certificates { principal: principal?, allow: allow.unwrap_or_default() }))
}

fn part(node: &Node, cx: &mut Cx) -> Option<Part> {
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    cx.parse(node, &format!("one of {}", names.join(", ")), |text| {
        let found = PARTS.iter().find(|(name, _)| *name == text).map(|(_, part)| *part);
        found.ok_or_else(|| format!("unknown part `{text}`{}", fields::hint(text, &names)))
    })
}

impl Authenticate for Certificates {
    fn name(&self) -> &'static str {
        NAME
    }

    /// No scheme is registered for certificates of TLS, but a 401 must carry one (RFC 9110
    /// §15.5.2): this one says to a person what is missing.
    fn challenges(&self) -> Vec<HeaderValue> {
        vec![HeaderValue::from_static("ClientCertificate")]
    }

    fn needs_certificate(&self) -> bool {
        true
    }

    fn authenticate<'a>(&'a self, _: &'a Head, client: &'a Client) -> Verdict<'a> {
        let Some(certificate) = &client.certificate else { return Verdict::Absent };
        let names = self.principal.of(certificate);
        if names.is_empty() {
            let nameless = "The certificate does not name its owner as is needed here";
            return Verdict::Refused(refused("auth.client_certificate.nameless", nameless));
        }
        let allowed = |name: &&str| {
            name.len() <= MAX_NAME
                && (self.allow.is_empty() || self.allow.iter().any(|glob| glob.matches(name)))
        };
        match names.into_iter().find(allowed) {
            Some(name) => Verdict::Known(Arc::new(principal(certificate, name))),
            None => {
                let other = "The certificate's owner is not let in here";
                let denial = refused("auth.client_certificate.not_allowed", other);
                Verdict::Refused(denial.detail(certificate.subject.clone()))
            }
        }
    }
}

impl Part {
    /// The names of this kind; never an empty one.
    fn of(self, certificate: &ClientCertificate) -> Vec<&str> {
        let names: Vec<&str> = match self {
            Self::CommonName => certificate.common_name.iter().map(String::as_str).collect(),
            Self::Subject => vec![certificate.subject.as_str()],
            Self::Dns => certificate.dns.iter().map(String::as_str).collect(),
            Self::Uri => certificate.uris.iter().map(String::as_str).collect(),
            Self::Email => certificate.emails.iter().map(String::as_str).collect(),
        };
        names.into_iter().filter(|name| !name.is_empty()).collect()
    }
}

fn principal(certificate: &ClientCertificate, name: &str) -> Principal {
    let mut principal = Principal::new(NAME, certificate.issuer.as_str(), name);
    if let Some(common) = certificate.common_name.as_ref().filter(|n| !n.is_empty()) {
        principal.name = common.clone();
    }
    principal.metadata = vec![
        ("serial".to_owned(), certificate.serial.clone()),
        ("sha256".to_owned(), certificate.sha256.clone()),
    ];
    principal
}

/// Known, but not let in: another try with the same certificate would be in vain.
fn refused(code: &'static str, message: &'static str) -> Denial {
    Denial::new(Reason::Forbidden, code, message)
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            subject: "CN=ann,O=Example".into(),
            common_name: Some("ann".into()),
            dns: vec!["a.example".into(), "b.example".into()],
            uris: vec!["spiffe://example/ann".into()],
            emails: Vec::new(),
            issuer: "CN=ca".into(),
            serial: "01".into(),
            sha256: "ab".into(),
        }
    }

    fn ask(principal: Part, allow: &[&str], certificate: Option<ClientCertificate>) -> String {
        let allow = allow.iter().map(|glob| WildMatch::new(glob)).collect();
        let method = Certificates { principal, allow };
        let address = "127.0.0.1".parse().unwrap();
        let client =
            Client { address, hidden: false, tls: true, certificate: certificate.map(Arc::new) };
        match method.authenticate(&head(&[]), &client) {
            Verdict::Absent => "absent".to_owned(),
            Verdict::Known(who) => who.subject.clone(),
            Verdict::Refused(denial) => denial.code.to_owned(),
            Verdict::Later(_) => "later".to_owned(),
        }
    }

    #[test]
    fn each_part_names_the_owner() {
        for (part, subject) in [
            (Part::CommonName, "ann"),
            (Part::Subject, "CN=ann,O=Example"),
            (Part::Dns, "a.example"),
            (Part::Uri, "spiffe://example/ann"),
            (Part::Email, "auth.client_certificate.nameless"),
        ] {
            assert_eq!(ask(part, &[], Some(certificate())), subject);
        }
        assert_eq!(ask(Part::CommonName, &[], None), "absent");
        let nameless = ClientCertificate { common_name: None, ..certificate() };
        assert_eq!(ask(Part::CommonName, &[], Some(nameless)), "auth.client_certificate.nameless");
        let empty = ClientCertificate { subject: String::new(), ..certificate() };
        assert_eq!(ask(Part::Subject, &[], Some(empty)), "auth.client_certificate.nameless");
    }

    #[test]
    fn only_whom_allow_names_comes_in() {
        let not = "auth.client_certificate.not_allowed";
        assert_eq!(ask(Part::Dns, &["b.*"], Some(certificate())), "b.example");
        assert_eq!(ask(Part::Dns, &["*.example"], Some(certificate())), "a.example");
        assert_eq!(ask(Part::Dns, &["c.example", "b.exampl"], Some(certificate())), not);
        assert_eq!(
            ask(Part::Uri, &["spiffe://example/*"], Some(certificate())),
            "spiffe://example/ann"
        );
        let long = ClientCertificate { common_name: Some("x".repeat(1025)), ..certificate() };
        assert_eq!(ask(Part::CommonName, &[], Some(long)), not);
    }
}
