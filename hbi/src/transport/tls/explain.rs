//! What failed handshakes mean, and what to do.

use std::io::ErrorKind;

use rustls::{AlertDescription, CertificateError, InvalidMessage, pki_types::ServerName};

/// What it means that a peer hangs up in the midst of a handshake: a server does that with who is turned
/// away unheard.
pub(crate) const TURNED_AWAY: &str = "the peer hung up in the handshake: it takes nobody from this \
    address for now (too many connections, or credentials refused too often: its `Defences`), or it is \
    going down, then try again later; or it is no hbi server that speaks TLS, then check host and port";

/// Says what is wrong in words: what was seen, what was expected, what to do.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(wrong) => certificate(wrong),
        E::AlertReceived(alert) => refused(*alert),
        E::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS: if it serves `tcp://`, connect to that".to_owned()
        }
        E::NoCertificatesPresented => {
            "the client has shown no certificate: set one with `ClientTls::certificate`".to_owned()
        }
        E::NoApplicationProtocol => {
            "the peer speaks TLS, but not hbi: check host and port".to_owned()
        }
        E::PeerIncompatible(what) => {
            format!(
                "the peers have no TLS version or cipher in common ({what:?}): hbi asks for TLS 1.3"
            )
        }
        E::InconsistentKeys(_) => {
            "the private key is not the certificate's: give the two files that belong together"
                .to_owned()
        }
        other => format!("TLS failed: {other}"),
    }
}

/// What another attempt would meet again: a certificate that is not taken (`PermissionDenied`), or another
/// protocol (`Unsupported`).
pub(crate) fn meaning(error: &rustls::Error) -> Option<ErrorKind> {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(_) | E::NoCertificatesPresented => Some(ErrorKind::PermissionDenied),
        E::AlertReceived(alert) => of_alert(*alert),
        E::InvalidMessage(_) | E::NoApplicationProtocol | E::PeerIncompatible(_) => {
            Some(ErrorKind::Unsupported)
        }
        _ => None,
    }
}

/// The same of what the peer tells.
pub(crate) fn of_alert(alert: AlertDescription) -> Option<ErrorKind> {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired
        | A::UnknownCA
        | A::CertificateExpired
        | A::BadCertificate
        | A::CertificateUnknown
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::AccessDenied
        | A::DecryptError => Some(ErrorKind::PermissionDenied),
        A::NoApplicationProtocol | A::ProtocolVersion | A::HandshakeFailure => {
            Some(ErrorKind::Unsupported)
        }
        _ => None,
    }
}

fn certificate(wrong: &CertificateError) -> String {
    use CertificateError as C;
    match wrong {
        C::Expired => expired(""),
        C::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 60 * 60);
            expired(&format!(" {days} days ago"))
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet: check the clocks of both sides".to_owned()
        }
        C::UnknownIssuer => "no authority that this side trusts vouches for the peer's \
            certificate: name the authority with `ca_file`, or pin a self-signed certificate with \
            `#sha256=...` behind the address"
            .to_owned(),
        C::BadSignature => {
            "the peer's certificate names an authority that this side trusts, but is \
            signed by another of the same name: give both sides the files of one authority"
                .to_owned()
        }
        C::NotValidForName => {
            "the peer's certificate is for another name: connect by a name it is for".to_owned()
        }
        C::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = match expected {
                ServerName::DnsName(name) => name.as_ref().to_owned(),
                ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
                other => format!("{other:?}"),
            };
            let presented: Vec<_> = presented.iter().map(|name| plain(name)).collect();
            let presented = match presented.join(", ") {
                none if none.is_empty() => {
                    "no name that is looked at (one in its common name is not)".to_owned()
                }
                some => some,
            };
            format!(
                "the peer's certificate is not for {expected}, but for: {presented}; connect by a \
                 name it is for"
            )
        }
        C::Revoked => {
            "the peer's certificate is revoked: its owner has to get a new one".to_owned()
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the peer's certificate is not made for this side of a connection (its extended key \
             usage says so)"
                .to_owned()
        }
        C::Other(other) if other.0.is::<super::pinned::WrongPin>() => other.0.to_string(),
        C::Other(other)
            if matches!(
                other.0.downcast_ref(),
                Some(webpki::Error::CaUsedAsEndEntity)
            ) =>
        {
            "the peer shows the certificate of an authority (CA:TRUE) as its own: pin it with \
             `#sha256=...` behind the address, or give the peer one that the authority has signed"
                .to_owned()
        }
        other => format!("the peer's certificate is not taken: {other}"),
    }
}

/// The name in what rustls shows of one: `DnsName("example.org")`.
fn plain(shown: &str) -> &str {
    let name = shown.split_once('(').map_or(shown, |(_, name)| name);
    name.trim_end_matches(')').trim_matches('"')
}

fn expired(when: &str) -> String {
    format!("the peer's certificate has expired{when}: its owner has to renew it")
}

/// What a peer means by an alert that ends the connection.
fn refused(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let why = match alert {
        A::CertificateRequired => {
            "it asks for a certificate: set one with `ClientTls::certificate`"
        }
        A::UnknownCA => "no authority that it trusts vouches for this side's certificate",
        A::CertificateExpired => "this side's certificate has expired: renew it",
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "it does not take this side's certificate"
        }
        A::CertificateRevoked => "this side's certificate is revoked",
        A::NoApplicationProtocol => "it speaks TLS, but not hbi: check host and port",
        A::ProtocolVersion => "it does not speak TLS 1.3",
        A::DecryptError => {
            "it could not verify this side's certificate: it is signed by another authority of the \
             same name as one that it trusts"
        }
        other => return format!("the peer ended the TLS handshake: {other:?}"),
    };
    format!("the peer ended the TLS handshake: {why}")
}
