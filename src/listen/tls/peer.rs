//! What a client's certificate says: in, its DER, which has been checked; out, the words that auth reads.

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::base::caller::ClientCertificate;
use crate::base::text::hex;

/// Reads a certificate; `None` where it is not X.509 as we read it.
pub(super) fn read(der: &[u8]) -> Option<ClientCertificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let mut found = ClientCertificate {
        subject: name(parsed.subject()),
        common_name: common_name(parsed.subject()),
        dns: Vec::new(),
        uris: Vec::new(),
        emails: Vec::new(),
        issuer: name(parsed.issuer()),
        serial: hex(unsigned(parsed.raw_serial())),
        sha256: hex(&Sha256::digest(der)),
    };
    // an extension that stands twice, or is broken, is no reason to go by what is left
    let Some(alternatives) = parsed.subject_alternative_name().ok()? else { return Some(found) };
    for alternative in &alternatives.value.general_names {
        match alternative {
            GeneralName::DNSName(name) => found.dns.push(name.to_ascii_lowercase()),
            GeneralName::URI(uri) => found.uris.push((*uri).to_owned()),
            GeneralName::RFC822Name(mail) => found.emails.push((*mail).to_owned()),
            _ => {}
        }
    }
    Some(found)
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let last = subject.iter_common_name().last()?;
    last.as_str().ok().map(str::to_owned)
}

/// RFC 4514 §2: the last part first, so that what is nearest to the client leads.
pub(super) fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let one = |part: &&_| {
        let part: &x509_parser::x509::RelativeDistinguishedName<'_> = part;
        part.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.iter().rev().map(one).collect::<Vec<_>>().join(",")
}

/// `CN=value`; RFC 4514 §2.4: what has no name or is no text, is hex.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = NAMES.iter().find(|(id, _)| *id == oid);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(text)) => format!("{name}={}", escaped(text)),
        _ => {
            let value = attribute.attr_value();
            let der = asn1(value.tag().0, value.data);
            format!("{}=#{}", known.map_or(oid.as_str(), |(_, name)| name), hex(&der))
        }
    }
}

/// The table of RFC 4514 §3, and the further names that OpenSSL writes, as nginx shows them.
const NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
];

/// RFC 4514 §2.4: nothing in a value can look like the beginning of another part.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push('\\');
                    out.push_str(&hex(&[byte]));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// A value with its tag and length (X.690 §8.1).
fn asn1(tag: u32, data: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(tag).unwrap_or(0)];
    match u8::try_from(data.len()) {
        Ok(short @ ..128) => out.push(short),
        _ => {
            let length: Vec<u8> =
                data.len().to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | u8::try_from(length.len()).unwrap_or(0));
            out.extend(length);
        }
    }
    out.extend_from_slice(data);
    out
}

/// A positive number without the zero that keeps it positive.
fn unsigned(number: &[u8]) -> &[u8] {
    match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType, SerialNumber,
    };

    use super::*;

    fn subject(parts: Vec<(DnType, DnValue)>) -> ClientCertificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind, value);
        }
        read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    /// What `openssl x509 -nameopt RFC2253` prints, but for letters beyond ASCII, which stay.
    #[test]
    fn names_are_rfc_4514_and_nothing_slips_out_of_its_place() {
        let text = |text: &str| DnValue::from(text);
        let own = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
        let cases = [
            (vec![(DnType::CommonName, text("ci"))], "CN=ci"),
            (
                vec![
                    (DnType::CountryName, text("DE")),
                    (DnType::OrganizationName, text("A, Inc.")),
                    (DnType::CommonName, text("x,O=admin")),
                ],
                "CN=x\\,O=admin,O=A\\, Inc.,C=DE",
            ),
            (
                vec![(DnType::CommonName, text(" #a+b<c>;\"\\ "))],
                "CN=\\ #a\\+b\\<c\\>\\;\\\"\\\\\\ ",
            ),
            (vec![(DnType::CommonName, text("#1"))], "CN=\\#1"),
            (vec![(DnType::CommonName, text("Jürgen\0\n"))], "CN=Jürgen\\00\\0a"),
            (vec![(own, text("x"))], "1.3.6.1.4.1.99999.1=#0c0178"),
            (
                vec![(DnType::CommonName, DnValue::BmpString("x".try_into().unwrap()))],
                "CN=#1e020078",
            ),
            (Vec::new(), ""),
        ];
        for (parts, expected) in cases {
            assert_eq!(subject(parts).subject, expected);
        }
    }

    #[test]
    fn all_that_auth_may_ask_for() {
        let mut params = CertificateParams::new(vec!["A.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Org");
        params.distinguished_name.push(DnType::CommonName, "name");
        let uri = "spiffe://example/ci".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from_slice(&[0xfe, 0x01]));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = ClientCertificate {
            subject: "CN=name,O=Org".to_owned(),
            common_name: Some("name".to_owned()),
            dns: vec!["a.example".to_owned()],
            uris: vec!["spiffe://example/ci".to_owned()],
            emails: vec!["a@b.example".to_owned()],
            issuer: "CN=name,O=Org".to_owned(),
            serial: "fe01".to_owned(),
            sha256: hex(&Sha256::digest(certificate.der())),
        };
        assert_eq!(read(certificate.der()), Some(expected));
        assert_eq!(read(b"0"), None);
        assert_eq!(subject(Vec::new()).common_name, None);
    }

    #[test]
    fn long_values_have_long_lengths() {
        assert_eq!(asn1(30, &[7; 300])[..4], [30, 0x82, 1, 44]);
        assert_eq!(asn1(30, &[7; 128])[..3], [30, 0x81, 128]);
        assert_eq!(asn1(30, &[7; 127])[..2], [30, 127]);
    }
}
