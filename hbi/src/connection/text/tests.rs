//! Connections in memory, between two peers and with peers written by hand, under a clock that stands
//! still: what waits for ever is told at once.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncWriteExt, duplex},
    time::timeout,
};

use crate::{Connection, HostingEnv, Options, PostingEnd, Settings, transport::Stream};

/// Longer than anything takes that comes to an end.
const LONG: Duration = Duration::from_secs(1000);

/// Two peers, of which the first takes so many conversations.
async fn pair(conversations: u32, one: HostingEnv, other: HostingEnv) -> (Connection, Connection) {
    let mut settings = Settings::default();
    settings.conversations = conversations;
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
