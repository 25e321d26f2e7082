//! The live cast as a whole.

// the program of the example, whose command line is not used here
#![allow(dead_code)]

#[path = "../livecast.rs"]
mod livecast;

use livecast::Watched;

async fn each_frame_is_seen_or_left_out(address: &str) {
    let mut watched = livecast::all(address, 100, 100).await.expect("a cast");
    watched.sort_by(|a, b| a.name.cmp(&b.name));
    let [quick, slow] = &watched[..] else {
        panic!("{watched:?}");
    };
    assert_eq!((&*quick.name, &*slow.name), ("quick", "slow"));
    for Watched { seen, left_out, .. } in [quick, slow] {
        assert_eq!(seen + left_out, 100, "{watched:?}");
    }
    assert!(slow.left_out > 0 && slow.seen < quick.seen, "{watched:?}");
}

#[tokio::test]
async fn a_slow_watcher_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = format!("unix://{}", folder.path().join("studio").display());
    tokio::join!(
        each_frame_is_seen_or_left_out("mem://studio"),
        each_frame_is_seen_or_left_out("tcp://127.0.0.1:0"),
        each_frame_is_seen_or_left_out("tls://127.0.0.1:0"),
        each_frame_is_seen_or_left_out("quic://127.0.0.1:0"),
        each_frame_is_seen_or_left_out(&socket),
    );
}
