//! Addresses of peers.

use std::{fmt, path::PathBuf, str::FromStr};

use super::Fingerprint;
use crate::{Error, Kind};

/// The address of a peer, such as `tcp://127.0.0.1:3232`.
///
/// ```
/// let address: hbi::Address = "tcp://[::1]:3232".parse()?;
/// assert_eq!(address.to_string(), "tcp://[::1]:3232");
/// assert!("text+tcp://localhost:3232".parse::<hbi::Address>()?.is_text());
/// assert!("http://example".parse::<hbi::Address>().is_err());
/// # Ok::<(), hbi::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: Scheme,
    text: bool,
}

/// What an address says, by its scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `tcp://host:port`.
    Tcp(String),
    /// `tls://host:port`, or `tls://host:port#sha256=<hex>` with the certificate's fingerprint.
    Tls(Secured),
    /// `quic://host:port`, or `quic://host:port#sha256=<hex>` with the certificate's fingerprint.
    Quic(Secured),
    /// `unix:///path`.
    Unix(PathBuf),
    /// `mem://name`, within this process.
    Mem(String),
}

/// Where a peer with a certificate is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Secured {
    /// `host:port`; the certificate is the host's.
    pub host: String,
    /// The fingerprint of the one certificate to trust, instead of any that authorities vouch for.
    pub pin: Option<Fingerprint>,
}

/// What an address can look like, for errors.
const FORMS: &str = "tcp://host:port, tls://host:port, quic://host:port, unix:///path, mem://name, and for \
                     the text wire text+tcp://host:port, text+unix:///path, text+mem://name";

impl Address {
    /// Where the peer is.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Whether the text wire is spoken there (`text+tcp://`, `text+unix://`), as the existing Python
    /// and Go peers do.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The port, where it has one.
    pub(super) fn port(&self) -> Option<&str> {
        let (Scheme::Tcp(host)
        | Scheme::Tls(Secured { host, .. })
        | Scheme::Quic(Secured { host, .. })) = &self.scheme
        else {
            return None;
        };
        host.rsplit_once(':').map(|(_, port)| port)
    }

    /// The same wire at another place.
    pub(super) fn at(&self, scheme: Scheme) -> Address {
        Address {
            scheme,
            text: self.text,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::new(
                Kind::Address,
                format!("address `{text}`: {why}; an address is one of {FORMS}"),
            )
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("it has no scheme"));
        };
        let scheme = scheme.to_ascii_lowercase();
        let (text, scheme) = match scheme.strip_prefix("text+") {
            Some(carrier) => (true, carrier),
            None => (false, &*scheme),
        };
        let scheme = match scheme {
            "tcp" => Scheme::Tcp(host_and_port(rest).map_err(bad)?),
            "tls" if text => return Err(bad("the existing peers know no TLS")),
            "tls" => Scheme::Tls(secured(rest).map_err(|e| bad(&e))?),
            "quic" if text => return Err(bad("the existing peers know no QUIC")),
            "quic" => Scheme::Quic(secured(rest).map_err(|e| bad(&e))?),
            "unix" if !rest.starts_with('/') => {
                return Err(bad("the path of a Unix socket is absolute: three slashes"));
            }
            "unix" => Scheme::Unix(rest.into()),
            "mem" if rest.is_empty() => return Err(bad("it has no name")),
            "mem" => Scheme::Mem(rest.to_owned()),
            _ => return Err(bad("its scheme is not known")),
        };
        Ok(Address { scheme, text })
    }
}

/// `host:port`, and `#sha256=<hex>` behind it.
fn secured(text: &str) -> Result<Secured, String> {
    let (host, pin) = match text.split_once('#') {
        None => (text, None),
        Some((host, fragment)) => match fragment.strip_prefix("sha256=") {
            Some(hex) => (host, Some(hex.parse::<Fingerprint>()?)),
            None => return Err("what follows `#` is not `sha256=<hex>`".to_owned()),
        },
    };
    let host = host_and_port(host)?;
    Ok(Secured { host, pin })
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    if text.contains('@') {
        return Err("no user stands in an address: who calls is told by `Options::token`");
    }
    if text.contains('#') {
        return Err("only the certificate of a `tls://` or `quic://` address can be pinned");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("it has no port");
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("an IPv6 address stands in brackets");
    }
    if port.starts_with('+') || port.parse::<u16>().is_err() {
        return Err("its port is no number up to 65535, or something follows it");
    }
    Ok(text.to_owned())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text {
            f.write_str("text+")?;
        }
        match &self.scheme {
            Scheme::Tcp(host) => write!(f, "tcp://{host}"),
            Scheme::Tls(secured) => write!(f, "tls://{secured}"),
            Scheme::Quic(secured) => write!(f, "quic://{secured}"),
            Scheme::Unix(path) => write!(f, "unix://{}", path.display()),
            Scheme::Mem(name) => write!(f, "mem://{name}"),
        }
    }
}

impl fmt::Display for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match &self.pin {
            Some(pin) => write!(f, "#sha256={pin}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_wrong_and_show_the_forms() {
        for (text, why) in [
            ("127.0.0.1:1", "no scheme"),
            ("tcp://localhost", "no port"),
            ("tcp://:80", "no host"),
            ("tcp://::1:80", "in brackets"),
            ("tcp://h:70000", "65535"),
            ("tcp://h:+80", "65535"),
            ("tcp://h:80/path", "something follows"),
            ("tcp://ali:secret@h:80", "no user"),
            ("tcp://h:1#sha256=00", "`tls://` or `quic://`"),
            ("wss://h:1", "not known"),
            ("tls://h:1#md5=00", "sha256"),
            ("tls://h:1#sha256=00", "64 hexadecimal digits"),
            ("unix://relative", "absolute"),
            ("gopher://x", "not known"),
            ("mem://", "no name"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), Kind::Address);
            let shown = error.to_string();
            assert!(
                shown.contains(why) && shown.contains("tcp://host:port"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_scheme_is_read_in_any_case() {
        let address: Address = "TEXT+Tcp://h:1".parse().expect("it is well formed");
        assert_eq!(address.to_string(), "text+tcp://h:1");
    }

    #[test]
    fn a_pin_is_read_and_shown() {
        let text = format!("tls://localhost:1#sha256={}", "0a".repeat(32));
        let address: Address = text.parse().expect("it is well formed");
        assert_eq!(address.to_string(), text);
    }
}
