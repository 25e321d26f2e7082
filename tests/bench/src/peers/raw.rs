//! `raw`: a loop by hand for each work, what the machine gives at best. One thing at a time on a
//! connection: as many calls as are to be in flight go out in one write, no call has a future, and
//! bulk is bare bytes.

use std::{io, sync::Arc};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::{
    Client, NO_COMPUTING, NO_SCRIPTS, Peer,
    floor::{Inbox, PIECE, ZEROS, kind, number, put_frame, two_numbers},
};
use crate::{
    process::Announce,
    works::{Load, Meter, Tally, Work},
};

/// What is read of bulk at once.
const BULK_BUFFER: usize = 64 << 10;
/// How many calls go out before an answer is read: what the sockets' queues hold of both for certain.
const MOST_IN_FLIGHT: usize = 4096;

/// The floor.
#[derive(Debug)]
pub(crate) struct Raw;

impl Peer for Raw {
    const NAME: &'static str = "raw";
    const ABOUT: &'static str = "a loop by hand, no futures: what the machine gives";
    type Client = RawClient;

    fn supports(work: Work) -> Result<(), &'static str> {
        match work {
            Work::Hol => Err("it does one thing at a time on a connection"),
            Work::Pipe(n) if n > MOST_IN_FLIGHT => {
                Err("it writes all calls before it reads, and the sockets hold 4096 for certain")
            }
            Work::Script(_) | Work::Loop(_) | Work::Interned(_) => Err(NO_SCRIPTS),
            Work::InPlace(_) | Work::Parallel(_) => Err(NO_COMPUTING),
            Work::Methods(_) => Err("it has no methods to choose from"),
            _ => Ok(()),
        }
    }

    async fn serve(announce: Announce) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce.at(listener.local_addr()?.to_string())?;
        let subscribers = Subscribers::default();
        loop {
            let stream = Arc::new(listener.accept().await?.0);
            stream.set_nodelay(true)?;
            let subscribers = subscribers.clone();
            // what fails is the client's to report
            tokio::spawn(async move { serve(stream, subscribers).await });
        }
    }

    async fn connect(address: &str) -> Result<RawClient> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let line = Line {
            stream,
            inbox: Inbox::new(),
            out: Vec::new(),
        };
        Ok(RawClient {
            line: Arc::new(Mutex::new(line)),
        })
    }
}

type Subscribers = Arc<std::sync::Mutex<Vec<Arc<TcpStream>>>>;

async fn serve(stream: Arc<TcpStream>, subscribers: Subscribers) -> Result<()> {
    let (mut inbox, mut out) = (Inbox::new(), Vec::new());
    loop {
        let read = read(&stream, inbox.space()).await?;
        inbox.came(read);
        let mut bulk = None;
        let mut event = None;
        while let Some(frame) = inbox.next() {
            match frame.kind {
                kind::ADD => {
                    let sum = number(frame.body, 0)?.wrapping_add(number(frame.body, 1)?);
                    put_frame(&mut out, kind::ANSWER, frame.call, &sum.to_le_bytes());
                }
                kind::ECHO => put_frame(&mut out, kind::ANSWER, frame.call, frame.body),
                kind::DOWNLOAD | kind::UPLOAD => {
                    bulk = Some((frame.kind, number(frame.body, 0)? as u64));
                    // what follows is no frame
                    break;
                }
                kind::SUBSCRIBE => {
                    subscribers
                        .lock()
                        .expect("no holder panics")
                        .push(stream.clone());
                    put_frame(&mut out, kind::ANSWER, frame.call, &[]);
                }
                kind::PUBLISH => {
                    event = Some(number(frame.body, 0)?);
                    put_frame(&mut out, kind::ANSWER, frame.call, &[]);
                }
                other => bail!("a frame of kind {other}"),
            }
        }
        match bulk {
            Some((kind::DOWNLOAD, bytes)) => write_bulk(&stream, bytes).await?,
            Some((_, bytes)) => {
                // the client sends bulk only once it was told to
                put_frame(&mut out, kind::ANSWER, 0, &[]);
                write(&stream, &out).await?;
                out.clear();
                let received = read_bulk(&stream, bytes).await?;
                put_frame(&mut out, kind::ANSWER, 0, &received.to_le_bytes());
            }
            None => (),
        }
        write(&stream, &out).await?;
        out.clear();
        if let Some(event) = event {
            let subscribed = subscribers.lock().expect("no holder panics").clone();
            let mut frame = Vec::new();
            put_frame(&mut frame, kind::EVENT, 0, &event.to_le_bytes());
            for subscriber in subscribed {
                write(&subscriber, &frame).await?;
            }
        }
    }
}

/// One connection, for one user at a time.
#[derive(Debug, Clone)]
pub(crate) struct RawClient {
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
struct Line {
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
}

impl Line {
    async fn flush(&mut self) -> Result<()> {
        write(&self.stream, &self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn read_some(&mut self) -> Result<()> {
        let read = read(&self.stream, self.inbox.space()).await?;
        self.inbox.came(read);
        Ok(())
    }

    /// One frame there, one back.
    async fn ask<T>(&mut self, kind: u8, body: &[u8], take: impl Fn(&[u8]) -> T) -> Result<T> {
        put_frame(&mut self.out, kind, 0, body);
        self.flush().await?;
        self.answer(take).await
    }

    async fn answer<T>(&mut self, take: impl Fn(&[u8]) -> T) -> Result<T> {
        loop {
            if let Some(frame) = self.inbox.next() {
                return Ok(take(frame.body));
            }
            self.read_some().await?;
        }
    }
}

impl Client for RawClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        let mut line = self.line.lock().await;
        Ok(line
            .ask(kind::ADD, &two_numbers(a, b), |body| number(body, 0))
            .await??)
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        let mut line = self.line.lock().await;
        line.ask(kind::ECHO, &payload, Bytes::copy_from_slice).await
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        let mut line = self.line.lock().await;
        put_frame(&mut line.out, kind::DOWNLOAD, 0, &bytes.to_le_bytes());
        line.flush().await?;
        read_bulk(&line.stream, bytes).await
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        let mut line = self.line.lock().await;
        line.ask(kind::UPLOAD, &bytes.to_le_bytes(), |_| ()).await?;
        write_bulk(&line.stream, bytes).await?;
        Ok(line.answer(|body| number(body, 0)).await?? as u64)
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        let line = self.line.clone();
        line.lock().await.ask(kind::SUBSCRIBE, &[], |_| ()).await?;
        tokio::spawn(async move {
            let mut line = line.lock().await;
            while let Ok(Ok(event)) = line.answer(|body| number(body, 0)).await {
                tally.received(event);
            }
        });
        Ok(())
    }

    async fn publish(&self, event: i64) -> Result<()> {
        self.line
            .lock()
            .await
            .ask(kind::PUBLISH, &event.to_le_bytes(), |_| ())
            .await
    }

    async fn flood(&self, in_flight: usize, load: Load, meter: Arc<Meter>) -> Result<()> {
        let line = &mut *self.line.lock().await;
        let payload = if let Load::Echo(payload) = &load {
            Some(payload)
        } else {
            None
        };
        let mut a = 0_i64;
        let put = |out: &mut Vec<u8>, a: i64| match payload {
            Some(payload) => put_frame(out, kind::ECHO, a as u32, payload),
            None => put_frame(out, kind::ADD, a as u32, &two_numbers(a, 1)),
        };
        for _ in 0..in_flight {
            put(&mut line.out, a);
            a += 1;
        }
        let mut answered = 0_i64;
        while !meter.is_stopped() {
            line.flush().await?;
            line.read_some().await?;
            let before = answered;
            while let Some(frame) = line.inbox.next() {
                match payload {
                    Some(payload) => ensure!(frame.body == payload, "an echo of other bytes"),
                    None => ensure!(number(frame.body, 0)? == answered + 1, "a wrong sum"),
                }
                answered += 1;
                put(&mut line.out, a);
                a += 1;
            }
            meter.count(0, (answered - before) as u64);
        }
        Ok(())
    }
}

async fn read(stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match stream.try_read(buffer) {
            Ok(0) => bail!("the other side closed the connection"),
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn read_bulk(stream: &TcpStream, bytes: u64) -> Result<u64> {
    let mut buffer = vec![0; BULK_BUFFER];
    let mut received = 0;
    while received < bytes {
        let most = (bytes - received).min(BULK_BUFFER as u64) as usize;
        received += read(stream, &mut buffer[..most]).await? as u64;
    }
    Ok(received)
}

async fn write_bulk(stream: &TcpStream, bytes: u64) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(PIECE as u64);
        write(stream, &ZEROS[..piece as usize]).await?;
        left -= piece;
    }
    Ok(())
}
