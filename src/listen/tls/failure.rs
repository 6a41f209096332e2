//! Why a handshake failed: in, the error; out, a word of a closed set, for a counter.

use std::io::{self, ErrorKind};

use rustls::{CertificateError, Error};

/// Words for a counter.
pub(in crate::listen) type Why = &'static str;

/// The client did not get through it in time.
pub(in crate::listen) const TIMEOUT: Why = "timeout";

/// What rustls says where no certificate fits a name.
const NOTHING_FITS: &str = "no server certificate chain resolved";

/// The word for an error of a handshake.
pub(in crate::listen) fn why(error: &io::Error) -> Why {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None => match error.kind() {
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => "closed",
            _ => "other",
        },
    }
}

fn of_tls(error: &Error) -> Why {
    match error {
        Error::NoCertificatesPresented => "no_certificate",
        Error::InvalidCertificate(CertificateError::Revoked) => "revoked",
        Error::InvalidCertificate(
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. }
            | CertificateError::UnknownRevocationStatus,
        ) => "revocation_unknown",
        Error::InvalidCertificate(_) => "bad_certificate",
        // it does not like our certificate, for one
        Error::AlertReceived(_) => "client_alert",
        Error::General(words) if words == NOTHING_FITS => "unknown_name",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError
        | Error::NoApplicationProtocol => "protocol",
        _ => "other",
    }
}
