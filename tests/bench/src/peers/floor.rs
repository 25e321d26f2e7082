//! What the floors share: how they connect, their frames and the buffer they read into.

use std::{future::Future, io};

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
};

use super::socket_path;

/// The length of what follows, the kind, the number of the call.
pub(super) const HEADER: usize = 9;
/// The length of a piece of bulk.
pub(super) const PIECE: usize = 64 << 10;
/// What the floors write at once: the kernel's queues stay in the cache with it.
pub(super) const WRITTEN: usize = 32 << 10;
/// What bulk is made of.
pub(super) static ZEROS: [u8; PIECE] = [0; PIECE];

const FIRST_BUFFER: usize = 1 << 10;
const LARGEST_BUFFER: usize = 64 << 10;
/// Bytes that the kernel holds back without having sent them are in the way of what is urgent.
#[cfg(any(target_os = "linux", target_os = "macos"))]
const NOT_SENT: u32 = 64 << 10;

/// What lies in the receiver's queue is in the way, too, and grows to megabytes where nothing bounds it.
const RECEIVED: u32 = 128 << 10;

/// What a frame is for. The bodies of all but the last are read whole.
pub(super) mod kind {
    /// Two numbers.
    pub(in super::super) const ADD: u8 = 0;
    /// Bytes.
    pub(in super::super) const ECHO: u8 = 1;
    /// How many bytes to send.
    pub(in super::super) const DOWNLOAD: u8 = 2;
    /// How many bytes will come.
    pub(in super::super) const UPLOAD: u8 = 3;
    pub(in super::super) const SUBSCRIBE: u8 = 4;
    /// An event.
    pub(in super::super) const PUBLISH: u8 = 5;
    /// What a call answers.
    pub(in super::super) const ANSWER: u8 = 6;
    /// An event, to who subscribed.
    pub(in super::super) const EVENT: u8 = 7;
    /// A piece of bulk, which may be read in parts.
    pub(in super::super) const BULK: u8 = 8;
}

/// Appends a frame.
pub(super) fn put_frame(out: &mut Vec<u8>, kind: u8, call: u32, body: &[u8]) {
    out.extend_from_slice(&header(kind, call, body.len()));
    out.extend_from_slice(body);
}

pub(super) fn header(kind: u8, call: u32, body: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&((body + HEADER - 4) as u32).to_le_bytes());
    header[4] = kind;
    header[5..].copy_from_slice(&call.to_le_bytes());
    header
}

pub(super) fn two_numbers(a: i64, b: i64) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&a.to_le_bytes());
    body[8..].copy_from_slice(&b.to_le_bytes());
    body
}

/// The number at a place of a body; none where the body is too short.
pub(super) fn number(body: &[u8], at: usize) -> io::Result<i64> {
    let bytes = body
        .get(at * 8..at * 8 + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(i64::from_le_bytes)
        .ok_or_else(|| io::Error::other("a body is too short"))
}

/// A buffer that is small until a read fills it.
#[derive(Debug)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of the piece of bulk that is being read: the call, and the bytes that are still to come.
    bulk: Option<(u32, usize)>,
}

/// What has come.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) call: u32,
    /// Of a piece of bulk, the part that is here.
    pub(super) body: &'a [u8],
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; FIRST_BUFFER],
            start: 0,
            end: 0,
            bulk: None,
        }
    }

    /// Where to read into; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read.
    pub(super) fn came(&mut self, bytes: usize) {
        self.end += bytes;
        if self.end == self.buffer.len() && self.buffer.len() < LARGEST_BUFFER {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }

    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        if let Some((call, left)) = self.bulk {
            let here = left.min(self.end - self.start);
            if here == 0 {
                return None;
            }
            self.bulk = (here < left).then_some((call, left - here));
            let body = &self.buffer[self.start..self.start + here];
            self.start += here;
            return Some(Frame {
                kind: kind::BULK,
                call,
                body,
            });
        }
        let bytes = &self.buffer[self.start..self.end];
        let header = bytes.first_chunk::<HEADER>()?;
        let [l0, l1, l2, l3, kind, c0, c1, c2, c3] = *header;
        let length = 4 + u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let call = u32::from_le_bytes([c0, c1, c2, c3]);
        if kind == kind::BULK {
            self.start += HEADER;
            self.bulk = Some((call, length.saturating_sub(HEADER)));
            return self.next();
        }
        if bytes.len() < length {
            return None;
        }
        let body = self.start + HEADER..self.start + length;
        self.start += length;
        Some(Frame {
            kind,
            call,
            body: &self.buffer[body],
        })
    }
}

/// How a floor connects.
pub(crate) trait Transport: Send + Sync + 'static {
    const MUX_NAME: &'static str;
    const MUX_ABOUT: &'static str;
    type Listener;
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Listens; gives the address too.
    fn listen() -> impl Future<Output = Result<(Self::Listener, String)>>;
    fn accept(listener: &Self::Listener) -> impl Future<Output = Result<Self::Stream>>;
    fn connect(address: &str) -> impl Future<Output = Result<Self::Stream>>;
}

/// TCP on loopback.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Transport for Tcp {
    const MUX_NAME: &'static str = "rawmux";
    const MUX_ABOUT: &'static str =
        "a future per call and one writer for all, by hand: the realistic floor";
    type Listener = TcpListener;
    type Stream = TcpStream;

    async fn listen() -> Result<(TcpListener, String)> {
        let socket = socket()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(1024)?;
        let address = listener.local_addr()?.to_string();
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        prepare(stream)
    }

    async fn connect(address: &str) -> Result<TcpStream> {
        let socket = socket()?;
        prepare(socket.connect(address.parse()?).await?)
    }
}

/// A socket, before it connects or listens: later the window has been told.
fn socket() -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVED)?;
    Ok(socket)
}

fn prepare(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT)?;
    Ok(stream)
}

/// A Unix socket.
#[derive(Debug)]
pub(crate) struct Unix;

impl Transport for Unix {
    const MUX_NAME: &'static str = "rawmux-unix";
    const MUX_ABOUT: &'static str = "rawmux over a Unix socket";
    type Listener = UnixListener;
    type Stream = UnixStream;

    async fn listen() -> Result<(UnixListener, String)> {
        let path = socket_path("rawmux")?;
        let address = path
            .to_str()
            .context("the path of the temporary directory is not text")?
            .to_owned();
        Ok((UnixListener::bind(path)?, address))
    }

    async fn accept(listener: &UnixListener) -> Result<UnixStream> {
        Ok(listener.accept().await?.0)
    }

    async fn connect(address: &str) -> Result<UnixStream> {
        Ok(UnixStream::connect(address).await?)
    }
}
