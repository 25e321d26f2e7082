//! Connecting: names that resolve to several addresses are tried side by side (RFC 8305).

#[cfg(feature = "quic")]
use std::sync::Arc;
use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::net::TcpStream;

use super::{Address, Scheme, Stream, TlsOptions, mem};
use crate::{Error, Kind, wire::mux::Settings};

/// How long an address may take before the next is tried beside it.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Connects to an address.
pub(crate) async fn dial(
    address: &Address,
    tls: &TlsOptions,
    settings: &Settings,
) -> Result<Stream, Error> {
    #[cfg(not(feature = "quic"))]
    let _ = settings;
    let failed =
        |kind, error: io::Error| Error::new(kind, format!("cannot reach {address}: {error}"));
    let unreachable = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused if error.get_ref().is_none() => {
            failed(Kind::Address, io::Error::other(nobody(address, &error)))
        }
        _ => failed(Kind::Address, error),
    };
    let insecure = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => failed(Kind::Refused, error),
        io::ErrorKind::Unsupported => failed(Kind::Protocol, error),
        _ => unreachable(error),
    };
    if address.port().is_some_and(|port| port.parse() == Ok(0)) {
        let text = "port 0 is any that is free, for servers: connect to that of `Server::address`";
        return Err(failed(Kind::Address, io::Error::other(text)));
    }
    match address.scheme() {
        #[cfg(feature = "tls")]
        Scheme::Tcp(_) if tls.secured_only => {
            let text = "it is not secured, though `Options::client_tls` says whom to trust: connect to \
                        a `tls://` or `quic://` address, or leave that out";
            Err(failed(Kind::Misuse, io::Error::other(text)))
        }
        Scheme::Tcp(host) => {
            let stream = tcp(host).await.map_err(unreachable)?;
            Stream::tcp(stream).map_err(unreachable)
        }
        Scheme::Tls(secured) => {
            let config = tls.connecting(address, secured).await?;
            let stream = tcp(&secured.host).await.map_err(unreachable)?;
            Stream::tls(stream, secured, config).await.map_err(insecure)
        }
        #[cfg(feature = "quic")]
        Scheme::Quic(secured) => {
            tls.client.load(secured.pin).await;
            let remembered = tls.remembered(address, secured)?;
            let (config, noting) = match &remembered {
                Some(server) => (Arc::clone(&server.config), Arc::clone(&server.noting)),
                None => tls.noting(secured)?,
            };
            noting.begin();
            let name = super::tls::server_name(&secured.host).map_err(unreachable)?;
            let found = tokio::net::lookup_host(&secured.host).await;
            let mut found = interleaved(found.map_err(unreachable)?);
            // one that is not waited for is no race: the address that answered last is the first
            let last = remembered.as_ref().and_then(|server| server.last());
            if let Some((last, _)) = last {
                found.make_contiguous().sort_by_key(|at| *at != last);
            }
            let quic = first(found, |at| {
                super::quic::connect(
                    at,
                    name.to_str().into_owned(),
                    Arc::clone(&config),
                    settings,
                    tls.congestion,
                    remembered.clone(),
                )
            });
            let quic = quic.await.map_err(|error| match noting.noted() {
                Some(noted) => failed(Kind::Refused, io::Error::other(super::tls::explain(&noted))),
                None => insecure(error),
            });
            Ok(Stream::Quic(Box::new(quic?)))
        }
        #[cfg(not(feature = "quic"))]
        Scheme::Quic(_) => Err(super::without_quic(address)),
        #[cfg(unix)]
        Scheme::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path)
                .await
                .map_err(unreachable)?;
            Ok(Stream::Unix(stream))
        }
        #[cfg(not(unix))]
        Scheme::Unix(_) => Err(unreachable(io::ErrorKind::Unsupported.into())),
        Scheme::Mem(name) => mem::dial(name).await.map(Stream::Mem).map_err(unreachable),
    }
}

/// Says that nobody listens at an address.
fn nobody(address: &Address, error: &io::Error) -> String {
    match address.scheme() {
        Scheme::Mem(_) => "nobody serves it in this process, and no other process can".to_owned(),
        _ => format!("nobody listens there ({error}): is the server up, and is this its address?"),
    }
}

/// Connects to the first of a host's addresses that answers.
async fn tcp(host: &str) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host(host).await?;
    first(interleaved(found), TcpStream::connect).await
}

/// Both families in turn, beginning with that which the resolver prefers.
fn interleaved(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let all: Vec<_> = found.collect();
    let preferred = all.first().is_some_and(SocketAddr::is_ipv6);
    let (mut ones, mut others): (VecDeque<_>, VecDeque<_>) = all
        .into_iter()
        .partition(|address| address.is_ipv6() == preferred);
    let mut list = VecDeque::new();
    while !ones.is_empty() || !others.is_empty() {
        list.extend(ones.pop_front());
        list.extend(others.pop_front());
    }
    list
}

/// The first that connects. Another is tried whenever one fails, or takes longer than it should. Where
/// none does the first error is told, but for one that says only that there is no way to an address.
async fn first<T, F>(
    mut addresses: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut trying = FuturesUnordered::new();
    let mut failed = None;
    loop {
        match addresses.pop_front() {
            Some(address) => trying.push(connect(address)),
            None if trying.is_empty() => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failed.unwrap_or_else(none));
            }
            None => {}
        }
        let more = !addresses.is_empty();
        tokio::select! {
            biased;
            Some(tried) = trying.next() => match tried {
                Ok(connected) => return Ok(connected),
                Err(error) if failed.as_ref().is_none_or(is_no_way) => failed = Some(error),
                Err(_) => {}
            },
            () = tokio::time::sleep(ATTEMPT), if more => {}
        }
    }
}

/// Whether there is no way to an address, as to those of a family that the network has not.
fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::NetworkUnreachable | E::HostUnreachable | E::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> VecDeque<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(interleaved(found.into_iter()), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_the_next_up_for_a_quarter_of_a_second() {
        let began = Instant::now();
        let tried = Mutex::new(Vec::new());
        let list = addresses(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"]);
        let found = first(list, |address: SocketAddr| {
            tried
                .lock()
                .unwrap()
                .push((address.to_string(), began.elapsed()));
            async move {
                match address.to_string().as_str() {
                    "1.1.1.1:1" => std::future::pending().await,
                    "1.1.1.2:1" => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => Ok(address),
                }
            }
        });
        assert_eq!(found.await.unwrap(), "1.1.1.3:1".parse().unwrap());
        let tried = tried.into_inner().unwrap();
        assert_eq!(tried[1], ("1.1.1.2:1".to_owned(), ATTEMPT));
        // one that fails does not hold the next up
        assert_eq!(tried[2], ("1.1.1.3:1".to_owned(), ATTEMPT));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_error_is_told_that_says_something() {
        use io::ErrorKind as E;
        for (errors, told) in [
            (
                &[E::NetworkUnreachable, E::ConnectionRefused][..],
                E::ConnectionRefused,
            ),
            (
                &[E::ConnectionRefused, E::NetworkUnreachable],
                E::ConnectionRefused,
            ),
            (
                &[E::PermissionDenied, E::ConnectionRefused],
                E::PermissionDenied,
            ),
            (
                &[E::HostUnreachable, E::HostUnreachable],
                E::HostUnreachable,
            ),
            (&[], E::NotFound),
        ] {
            let list = addresses(&["1.1.1.1:0", "1.1.1.2:1"]);
            let list = list.into_iter().take(errors.len()).collect();
            let failed = first(list, |address: SocketAddr| async move {
                io::Result::<()>::Err(errors[usize::from(address.port())].into())
            });
            assert_eq!(failed.await.unwrap_err().kind(), told, "{errors:?}");
        }
    }
}
