//! A member whose process is killed, and that so says no goodbye: its room is told, over each transport.

use super::{Heard, Member, SOON, process::Program};
use crate::server;

#[tokio::test]
async fn a_member_that_is_killed_leaves_over_each_transport() {
    let dir = tempfile::tempdir().expect("a directory");
    let unix = dir.path().join("socket").display().to_string();
    let addresses = [
        "tcp://127.0.0.1:0".to_owned(),
        format!("unix://{unix}"),
        "tls://127.0.0.1:0".to_owned(),
        "quic://127.0.0.1:0".to_owned(),
        "text+tcp://127.0.0.1:0".to_owned(),
    ];
    let serving = server::serve(&addresses, &dir.path().join("server")).await;
    let serving = serving.expect("serves");
    let addresses = serving.addresses();
    let mut watcher = Member::join(&addresses[0], "watcher", "Tea").await;
    let files = dir.path().display().to_string();
    for (n, address) in addresses.iter().enumerate() {
        let nick = format!("member{n}");
        let how = [
            "--plain", "--files", &files, "--room", "Tea", "--nick", &nick,
        ];
        let mut member = Program::start(&[&["join"], &how[..], &[address]].concat());
        member.expect("@@ You are in #Tea now").await;
        watcher
            .hear(|heard| *heard == Heard::Joined(nick.clone()))
            .await;
        member.kill().await;
        watcher
            .hear(|heard| *heard == Heard::Left(nick.clone()))
            .await;
    }
    watcher.connection.close(SOON).await.expect("a clean end");
}
