//! A server that is killed in the middle of everything: what it acknowledged is there when it is
//! back.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use tokio::time::timeout;

use super::{Member, SOON, content, process::Program, upload};
use crate::protocol::TransfersStub;

/// So many lines are acknowledged before the server is killed.
const LINES: usize = 60;

/// So many files are.
const FILES: usize = 5;

/// A server in a process of its own; its address.
pub(super) async fn start(dir: &str) -> (Program, String) {
    let mut server = Program::start(&["serve", "--addr", "tcp://127.0.0.1:0", "--dir", dir]);
    let line = server.expect("serving at ").await;
    let address = line.trim_start_matches("serving at ").to_owned();
    (server, address)
}

#[tokio::test]
async fn what_a_killed_server_acknowledged_is_there_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().display().to_string();
    let (server, address) = start(&dir).await;

    let said = Arc::new(Mutex::new(Vec::new()));
    let next = Arc::new(AtomicI64::new(0));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut working = Vec::new();
    for n in 0..3 {
        let member = Member::join(&address, &format!("speaker{n}"), "Tea").await;
        let (said, next) = (Arc::clone(&said), Arc::clone(&next));
        working.push(tokio::spawn(async move {
            loop {
                let text = format!("line {}", next.fetch_add(1, Ordering::SeqCst));
                if member.say(0, &text).await.is_err() {
                    return;
                }
                said.lock().expect("not poisoned").push(text);
            }
        }));
    }
    for n in 0..2 {
        let member = Member::join(&address, &format!("sender{n}"), "Coffee").await;
        let sent = Arc::clone(&sent);
        working.push(tokio::spawn(async move {
            let transfers = TransfersStub::new(&member.connection);
            for seed in 0.. {
                let content = content(400_000, seed * 2 + n);
                let file = upload("Coffee", &format!("{n}-{seed}.bin"), &content);
                if transfers.upload(&file, 0, content).await.is_err() {
                    return;
                }
                sent.lock().expect("not poisoned").push(file);
            }
        }));
    }
    let enough = async {
        loop {
            let said = said.lock().expect("not poisoned").len();
            let sent = sent.lock().expect("not poisoned").len();
            if said >= LINES && sent >= FILES {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, enough).await.expect("all work");
    server.kill().await;
    for work in working {
        timeout(SOON, work).await.expect("notices").expect("ends");
    }

    let (server, address) = start(&dir).await;
    let member = Member::join(&address, "later", "Tea").await;
    member.say(0, "the end").await.expect("is said");
    let mut read = Vec::new();
    let mut late = Member::join(&address, "latest", "Tea").await;
    loop {
        let msg = late.line().await;
        if msg.from == "later" {
            break;
        }
        read.push(msg.text);
    }
    let said = said.lock().expect("not poisoned").clone();
    // a room keeps 200 lines, of which "the end" is one
    let kept = said.iter().rev().take(150).all(|line| read.contains(line));
    assert!(kept, "{said:?} was acknowledged, {read:?} is there");
    let mut once = read.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), read.len(), "{read:?}");

    let transfers = TransfersStub::new(&late.connection);
    let sent = sent.lock().expect("not poisoned").clone();
    for file in &sent {
        let (info, data) = transfers
            .download("Coffee", &file.name, 0)
            .await
            .expect("is there");
        assert_eq!((info.size, info.crc), (file.size, file.crc));
        let data = data.to_bytes(1 << 20).await.expect("arrives");
        assert_eq!(crc32fast::hash(&data), file.crc);
    }
    // what is listed is complete: what was on its way is not among it
    for (size, name) in late.chat.list_files("Coffee").await.expect("an answer") {
        assert_eq!(size, 400_000, "{name}");
    }
    member.connection.close(SOON).await.expect("a clean end");
    server.kill().await;
}
