//! A member that does not read: nobody else notices, and it is told what it missed.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{StreamExt, future::join_all, stream, task::AtomicWaker};
use hbi::{Options, Settings};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Heard, Member, ear, killed::start, serve};

const MEMBERS: usize = 200;
const SPEAKERS: usize = 8;
const LINES: usize = 60;

/// A stream that can be kept from reading.
struct Gated {
    stream: TcpStream,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    opened: AtomicWaker,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.gate.opened.register(cx.waker());
        if self.gate.shut.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A member that reads until its gate is shut.
async fn join_gated(address: &str) -> (Member, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let port = address.trim_start_matches("tcp://");
    let stream = Gated {
        stream: TcpStream::connect(port).await.expect("connects"),
        gate: Arc::clone(&gate),
    };
    let mut settings = Settings::default();
    // so that little is on its way to it
    settings.conversations = 16;
    let (env, heard) = ear();
    let connection = Options::new().settings(settings).take(stream, env).await;
    let connection = connection.expect("connects");
    let member = Member::new(connection, heard, "stuck", "Tea").await;
    (member, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_never_reads_slows_nobody_and_is_told_what_it_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;

    let (mut stuck, gate) = join_gated(&address).await;
    gate.shut.store(true, Ordering::SeqCst);

    let joining = (1..MEMBERS).map(|n| {
        let address = address.clone();
        async move { Member::join(&address, &format!("member{n}"), "Tea").await }
    });
    let mut members = join_all(joining).await;
    let mut speakers = members.split_off(MEMBERS - 1 - SPEAKERS);

    // all is said and heard, though one hears nothing
    let speak = speakers.iter().map(|speaker| async {
        for line in 0..LINES {
            speaker
                .say(line as i64, &format!("line {line}"))
                .await
                .expect("is said");
        }
    });
    let listen = members.iter_mut().map(|member| async {
        for _ in 0..SPEAKERS * LINES {
            member.line().await;
        }
    });
    tokio::join!(join_all(speak), join_all(listen));

    gate.shut.store(false, Ordering::SeqCst);
    gate.opened.wake();
    let (mut came, mut missed) = (0, 0);
    let number = |text: &str| text.split(' ').find_map(|word| word.parse::<usize>().ok());
    // each member's coming and each line was pushed to it, or counted as missed
    let pushed = MEMBERS - 1 + SPEAKERS * LINES;
    while came + missed < pushed {
        match stuck.next().await {
            Heard::Line(_) | Heard::Joined(_) => came += 1,
            Heard::Notice(text) if text.contains("too slow") => {
                missed += number(&text).expect("a number");
            }
            _ => {}
        }
    }
    assert_eq!(came + missed, pushed);
    assert!(
        missed > 0 && came < pushed / 2,
        "{came} came, {missed} were missed"
    );
    let speaker = speakers.pop().expect("a speaker");
    speaker.say(0, "listen again").await.expect("is said");
    while stuck.line().await.text != "listen again" {}
}

/// How many lines of [`LONG`] bytes each of two speakers says: together 12 MB.
const MANY: usize = 1500;
const LONG: usize = 4000;

/// So much more memory than without it the server may take for a member that does not read: the
/// lines that wait for it, and those that its window let go.
const HELD: usize = 6 << 20;

/// Two speakers say so much; many lines of each are under way at once.
async fn speak_much(speakers: &mut [Member; 2]) {
    let line = "x".repeat(LONG);
    join_all(speakers.iter().map(|speaker| async {
        let lines = stream::iter(0..MANY).map(|n| speaker.say(n as i64, &line));
        let said: Vec<_> = lines.buffer_unordered(50).collect().await;
        said.into_iter().for_each(|said| said.expect("is said"));
    }))
    .await;
    for speaker in speakers {
        while speaker.heard.try_recv().is_ok() {}
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_that_never_reads_misses_is_not_kept_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().display().to_string();
    let (server, address) = start(&dir).await;
    let mut speakers = [
        Member::join(&address, "first", "Tea").await,
        Member::join(&address, "second", "Tea").await,
    ];
    // what the server takes for all this where nobody is stuck
    speak_much(&mut speakers).await;
    let before = server.memory();
    let (mut stuck, gate) = join_gated(&address).await;
    gate.shut.store(true, Ordering::SeqCst);
    speak_much(&mut speakers).await;
    let after = server.memory();
    assert!(
        after < before + HELD,
        "{before} bytes before, {after} with a member that does not read"
    );
    gate.shut.store(false, Ordering::SeqCst);
    gate.opened.wake();
    let is_it = |heard: &Heard| matches!(heard, Heard::Notice(text) if text.contains("too slow"));
    stuck.hear(is_it).await;
    server.kill().await;
}
