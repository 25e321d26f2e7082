//! The live cast as a whole.

// the program of the example, whose command line is not used here
#![allow(dead_code)]

#[path = "../livecast.rs"]
mod livecast;

use std::time::Duration;

use hbi::Items;
use livecast::{Me, StudioStub, Watched};

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

#[tokio::test]
async fn a_subscriber_has_one_short_name_and_watches_only_what_it_is_ready_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = livecast::studio("mem://guarded", folder.path()).await;
    let _server = server.expect("serves");
    let busy = Me {
        name: "busy".to_owned(),
        ready: false,
        looks: Duration::ZERO,
    };
    let busy = livecast::watch("mem://guarded", busy).await;
    let busy = busy.expect("subscribes");
    let again = StudioStub::new(&busy).subscribe("busy").await;
    assert!(again.expect_err("is refused").is_refused());

    let caster = hbi::connect("mem://guarded", hbi::HostingEnv::new()).await;
    let caster = caster.expect("connects");
    let studio = StudioStub::new(&caster);
    let long = studio.subscribe("x".repeat(65)).await;
    assert!(long.expect_err("is refused").is_refused());
    assert_eq!(studio.invite("the sea").await.expect("an answer"), [0; 0]);
    // the number of the one that is not ready
    let watched = studio.relay(vec![0], Items::iter([])).await;
    assert_eq!(watched.expect("an answer"), []);
}
