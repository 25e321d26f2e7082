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

use futures_util::{future::join_all, task::AtomicWaker};
use hbi::{Options, Settings};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Heard, Member, ear, serve};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_never_reads_slows_nobody_and_is_told_what_it_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;

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
    let mut stuck = Member::new(connection, heard, "stuck", "Tea").await;
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
