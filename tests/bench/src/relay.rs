//! A relay that makes a long way of a short one: it passes bytes on in order, each a fixed time after
//! it came, however many are under way.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{peers::socket_path, process::announce};

/// Relays between clients and the server at `address`, an absolute path or a TCP address, with or
/// without a scheme before it and a fragment behind it.
pub(crate) async fn serve(address: &str, delay: Duration) -> Result<()> {
    let at = address.find("://").map_or(0, |at| at + 3);
    let (scheme, address) = address.split_at(at);
    let (address, fragment) = address.split_at(address.find('#').unwrap_or(address.len()));
    if address.starts_with('/') {
        let path = socket_path("relay")?;
        let listener = UnixListener::bind(&path)?;
        announce(format!("{scheme}{}", path.display()))?;
        loop {
            let (near, _) = listener.accept().await?;
            let far = UnixStream::connect(address).await?;
            join(near.into_split(), far.into_split(), delay);
        }
    }
    if scheme == "quic://" {
        let near = UdpSocket::bind("127.0.0.1:0").await?;
        announce(format!("{scheme}{}{fragment}", near.local_addr()?))?;
        return datagrams(Arc::new(near), address.parse()?, delay).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(format!("{scheme}{}{fragment}", listener.local_addr()?))?;
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(address).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        join(near.into_split(), far.into_split(), delay);
    }
}

/// The longest datagram that there is.
const DATAGRAM: usize = 64 << 10;

/// Relays datagrams, each client's through a socket of its own.
async fn datagrams(near: Arc<UdpSocket>, server: SocketAddr, delay: Duration) -> Result<()> {
    let mut ways: HashMap<SocketAddr, mpsc::UnboundedSender<Late>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (length, client) = near.recv_from(&mut buffer).await?;
        let late = (Instant::now() + delay, buffer[..length].to_vec());
        if let Some(way) = ways.get(&client) {
            way.send(late)?;
            continue;
        }
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        far.connect(server).await?;
        let way = deliver(Arc::clone(&far), None);
        way.send(late)?;
        ways.insert(client, way);
        tokio::spawn(come_back(far, Arc::clone(&near), client, delay));
    }
}

/// What is under way, and when it arrives.
type Late = (Instant, Vec<u8>);

/// Sends datagrams on when they are due.
fn deliver(to: Arc<UdpSocket>, address: Option<SocketAddr>) -> mpsc::UnboundedSender<Late> {
    let (under_way, mut arriving) = mpsc::unbounded_channel::<Late>();
    tokio::spawn(async move {
        while let Some((when, datagram)) = arriving.recv().await {
            sleep_until(when).await;
            // one that cannot be sent is lost, as datagrams are
            let _ = match address {
                Some(address) => to.send_to(&datagram, address).await,
                None => to.send(&datagram).await,
            };
        }
    });
    under_way
}

async fn come_back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr, delay: Duration) {
    let way = deliver(near, Some(client));
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(length) = far.recv(&mut buffer).await {
        if way
            .send((Instant::now() + delay, buffer[..length].to_vec()))
            .is_err()
        {
            break;
        }
    }
}

fn join<R, W>(near: (R, W), far: (R, W), delay: Duration)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    pass_on(near.0, far.1, delay);
    pass_on(far.0, near.1, delay);
}

fn pass_on<R, W>(mut from: R, mut to: W, delay: Duration)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    // as long as the way is, so much may be on it: no bound
    let (under_way, mut arriving) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        // an end or a broken connection ends the other side by dropping `under_way`
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if under_way
                .send((Instant::now() + delay, buffer[..length].to_vec()))
                .is_err()
            {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((when, bytes)) = arriving.recv().await {
            sleep_until(when).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
}
