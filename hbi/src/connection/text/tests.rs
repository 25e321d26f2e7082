//! Connections in memory, between two peers and with peers written by hand, under a clock that stands
//! still: what waits for ever is told at once.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{sleep, timeout},
};

use crate::{
    Connection, Data, Error, HostingEnv, Options, PostingEnd, Settings, transport::Stream,
};

/// Longer than anything takes that comes to an end.
const LONG: Duration = Duration::from_secs(1000);

/// A peer written by hand.
struct Raw(DuplexStream);

impl Raw {
    async fn send(&mut self, text: &str) {
        let sent = timeout(LONG, self.0.write_all(text.as_bytes())).await;
        sent.expect("the peer reads").expect("it is sent");
    }

    async fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        let read = timeout(LONG, self.0.read_exact(&mut bytes)).await;
        read.expect("it comes").expect("all of it");
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// The rest of the stream, read slowly.
    async fn rest(&mut self) -> String {
        let (mut rest, mut piece) = (Vec::new(), [0; 1024]);
        loop {
            match timeout(LONG, self.0.read(&mut piece))
                .await
                .expect("an end")
            {
                Ok(0) => return String::from_utf8_lossy(&rest).into_owned(),
                Ok(n) => rest.extend_from_slice(&piece[..n]),
                Err(error) => panic!("{error}"),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A connection to a peer written by hand, over pipes of this size.
async fn raw(pipe: usize, env: HostingEnv) -> (Connection, Raw) {
    let (near, far) = duplex(pipe);
    let joined = Options::new().join(Stream::Mem(near), true, env).await;
    (joined.expect("joins"), Raw(far))
}

/// Two peers, of which the first takes so many conversations.
async fn pair(conversations: u32, one: HostingEnv, other: HostingEnv) -> (Connection, Connection) {
    let settings = Settings {
        conversations,
        ..Settings::default()
    };
    let (near, far) = duplex(64 << 10);
    let options = Options::new().settings(settings);
    let one = options.join(Stream::Mem(near), true, one).await;
    let other = Options::new().join(Stream::Mem(far), true, other).await;
    (one.expect("joins"), other.expect("joins"))
}

/// Makes the posting end known to what the environment exposes.
fn known(env: HostingEnv, po: &Arc<OnceLock<PostingEnd>>) -> HostingEnv {
    let po = Arc::clone(po);
    env.on_connect(|known| async move { po.set(known).expect("it is set once") })
}

fn packet(directive: &str, payload: &str) -> String {
    format!("[{}#{directive}]{payload}", payload.len())
}

#[tokio::test(start_paused = true)]
async fn answers_pass_where_no_more_conversations_do() {
    let po = Arc::new(OnceLock::<PostingEnd>::new());
    let server = known(HostingEnv::new(), &po)
        .function("one", || 1)
        .async_function("ask", move || {
            let po = po.get().expect("it is connected").clone();
            async move { po.script::<i64>("two()").await.expect("an answer") }
        });
    let client = HostingEnv::new().function("two", || 2);
    let (_server, client) = pair(1, server, client).await;
    let ask = timeout(LONG, client.script::<i64>("ask()")).await;
    assert_eq!(ask.expect("an end").expect("an answer"), 2);
    // nor does one that stands before the answer
    let ask = client.script::<i64>("ask()").send();
    let one = client.script::<i64>("one()").send();
    let both = timeout(LONG, async { tokio::join!(ask, one) }).await;
    let (ask, one) = both.expect("an end");
    assert_eq!((ask.expect("an answer"), one.expect("an answer")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn peers_that_both_have_much_to_write_read_all_the_same() {
    let env = || HostingEnv::new().function("echo", |text: String| text);
    let (server, client) = pair(4096, env(), env()).await;
    let text = "x".repeat(15_000);
    let calls = |peer: &Connection| {
        let script = format!("echo('{text}')");
        let calls = (0..600).map(|_| peer.script::<String>(script.clone()).into_future());
        join_all(calls.collect::<Vec<_>>())
    };
    let both = timeout(LONG, async { tokio::join!(calls(&client), calls(&server)) }).await;
    let (there, back) = both.expect("an end");
    for answer in there.into_iter().chain(back) {
        assert_eq!(answer.expect("an answer").len(), text.len());
    }
}

#[test]
fn what_lands_when_the_connection_ends_lets_go_of_its_calls() {
    let (tell, told) = std::sync::mpsc::channel();
    // it would stand still for ever, with its thread
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let po = Arc::new(OnceLock::<PostingEnd>::new());
            let env = known(HostingEnv::new(), &po).async_function("ask", move || {
                let po = po.get().expect("it is connected").clone();
                async move { po.script::<i64>("f()").await.unwrap_or(0) }
            });
            let (near, far) = duplex(64 << 10);
            let joined = Options::new().join(Stream::Mem(near), true, env).await;
            let (peer, mut raw) = (joined.expect("joins"), far);
            peer.notif("g()").await.expect("sent");
            let answer = format!("[3#co_ack_begin]101{}[4#err]gone", packet("", "ask()"));
            raw.write_all(answer.as_bytes()).await.expect("it reads");
            peer.wait_closed().await
        });
        tell.send(()).expect("the test waits");
    });
    let ended = told.recv_timeout(Duration::from_secs(60));
    ended.expect("the connection ends");
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_what_it_answers_is_refused() {
    let (peer, mut raw) = raw(1024, HostingEnv::new()).await;
    let sending = tokio::spawn({
        let po = peer.po();
        async move {
            let mut co = po.co().await?;
            co.send_code("f()").await?;
            let endless = stream::repeat_with(|| Ok::<_, Error>(Bytes::from(vec![b'x'; 10_000])));
            co.send_data(Data::stream(endless)).await
        }
    });
    raw.expect("[3#co_begin]101").await;
    raw.send("[3#co_ack_begin]101[3#co_ack_end]101").await;
    drop(raw);
    let error = timeout(LONG, sending).await.expect("an end");
    let error = error.expect("no panic").expect_err("nobody reads it");
    let reason = "an answer to conversation 101 before its end";
    assert!(error.to_string().contains(reason), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stands_still_does_not_outlive_its_connection() {
    let (peer, mut raw) = raw(1024, HostingEnv::new()).await;
    let sending = tokio::spawn({
        let po = peer.po();
        async move {
            let mut co = po.co().await?;
            co.send_code("f()").await?;
            let first = stream::iter([Ok::<_, Error>(Bytes::from(vec![b'x'; 100_000]))]);
            co.send_data(Data::stream(first.chain(stream::pending())))
                .await
        }
    });
    raw.expect("[3#co_begin]101").await;
    drop(raw);
    let error = timeout(LONG, sending).await.expect("an end");
    let error = error.expect("no panic").expect_err("nobody reads it");
    assert!(error.is_disconnected(), "{error}");
}

/// An environment with an answer of 100 KiB, and that answer as it is written.
fn much() -> (HostingEnv, String) {
    let text = "x".repeat(100 << 10);
    let answer = packet("co_recv", &format!("\"{text}\""));
    let env = HostingEnv::new().function("much", move || text.clone());
    let ack = format!("[3#co_ack_begin]101{answer}[3#co_ack_end]101");
    (env, ack)
}

#[tokio::test(start_paused = true)]
async fn answers_are_written_to_their_end_where_the_peer_sends_no_more() {
    let (env, answer) = much();
    let (_peer, mut raw) = raw(1024, env).await;
    raw.send("[3#co_begin]101[6#]much()[3#co_end]101").await;
    raw.0.shutdown().await.expect("shuts down");
    assert!(raw.rest().await == answer);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_does_not_wait_for_one_that_takes_a_little_at_a_time() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (env, _) = much();
    let env = env.on_disconnect(|_| tell.send(()).expect("the test waits"));
    let (peer, mut raw) = raw(1024, env).await;
    raw.send("[3#co_begin]101[6#]much()[3#co_end]101").await;
    raw.0.shutdown().await.expect("shuts down");
    let _taking = tokio::spawn(async move {
        while raw.0.read(&mut [0; 512]).await.is_ok() {
            sleep(Duration::from_secs(40)).await;
        }
    });
    // until it is known that it sends no more
    sleep(Duration::from_secs(10)).await;
    // goodbye, for 5 s
    drop(peer);
    let ended = timeout(Duration::from_secs(6), told).await;
    ended.expect("an end").expect("it is told");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_behind_what_is_being_written() {
    let (env, answer) = much();
    let (peer, mut raw) = raw(1024, env).await;
    raw.send("[3#co_begin]101[6#]much()[3#co_end]101").await;
    // the answer has begun to leave
    raw.expect("[3#co_ack_begin]101").await;
    raw.send("[3#bogus]101").await;
    let mut rest = String::new();
    let read = timeout(LONG, raw.0.read_to_string(&mut rest)).await;
    read.expect("an end").expect("all of it");
    let reason = rest.strip_prefix(&answer["[3#co_ack_begin]101".len()..]);
    let reason = reason.expect("the answer is whole");
    assert!(
        reason.contains("#err]") && reason.contains("bogus"),
        "{reason}"
    );
    assert!(peer.wait_closed().await.to_string().contains("bogus"));
}
