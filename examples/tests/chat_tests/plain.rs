//! The client without a terminal.

use hbi::prelude::*;

use super::{Member, SOON, process::Program, serve};
use crate::protocol::{ChatterStub, LOBBY};

/// How many notices a server pushes before it stops, and how many bytes each has: fewer than it may
/// push at once, and more than is printed before somebody reads it.
const NOTICES: usize = 200;
const LONG: usize = 1000;

#[tokio::test]
async fn a_line_that_is_no_utf_8_ends_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let mut listener = Member::join(&address, "Bob", LOBBY).await;
    let mut ann = Program::start(&["join", "--plain", "--nick", "Ann", &address]);
    ann.send(b"a\xff").await;
    ann.send("b").await;
    assert_eq!(listener.line().await.text, "a\u{fffd}");
    assert_eq!(listener.line().await.text, "b");
    ann.end().await;
}

#[tokio::test]
async fn what_a_server_said_before_it_was_gone_is_shown() {
    let (pushed, all_pushed) = tokio::sync::oneshot::channel();
    let pushed = std::sync::Mutex::new(Some(pushed));
    let factory = move |peer: Peer| {
        let pushed = pushed.lock().expect("not poisoned").take();
        let env = HostingEnv::new().on_connect(move |_po| async move {
            let chatter = ChatterStub::new(&peer);
            for n in 0..NOTICES {
                let notice = format!("notice {n}{}", ".".repeat(LONG));
                let shown = chatter.show_notice(notice).await;
                shown.expect("is told");
            }
            // one comes
            pushed.expect("comes once").send(()).expect("is awaited");
        });
        std::future::ready(Ok(env))
    };
    let server = hbi::serve("tcp://127.0.0.1:0", factory).await;
    let server = server.expect("serves");
    let address = server.address().to_string();
    let mut ann = Program::start(&["join", "--plain", &address]);
    all_pushed.await.expect("are pushed");
    tokio::join!(server.shutdown(SOON), ann.expect("! "));
    let last = format!("notice {}.", NOTICES - 1);
    let shown = ann.printed.iter().any(|line| line.starts_with(&last));
    assert!(shown, "{} lines", ann.printed.len());
}
