//! The server's files: what breaks off or is refused leaves nothing behind, and what is full takes no
//! more.

use std::{path::Path, pin::pin, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, poll, stream};
use hbi::{CallError, Data};
use tokio::sync::{Semaphore, oneshot};

use super::{Member, content, serve, upload};
use crate::{
    files::Files,
    protocol::{Refusal, Refused, TransfersStub},
};

/// Makes a file of a size that takes no space, changed long ago or now.
fn make(path: &Path, size: u64, is_old: bool) {
    std::fs::create_dir_all(path.parent().expect("lies somewhere")).expect("a directory");
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(size).expect("is set");
    if is_old {
        file.set_modified(SystemTime::UNIX_EPOCH).expect("is set");
    }
}

#[tokio::test]
async fn uploads_that_broke_off_wait_a_day_to_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let partial = dir.path().join("partial/Tea");
    let file = upload("Tea", "f.bin", &content(1000, 1));
    let fresh = partial.join(format!("f.bin.1000.{:08x}", file.crc));
    let old = partial.join("old.bin.1000.00000000");
    let received = partial.join(".received.3");
    make(&fresh, 10, false);
    make(&old, 1 << 30, true);
    make(&received, 10, false);
    let files = Files::new(dir.path());
    files.count().await.expect("is counted");
    assert!(fresh.exists() && old.exists() && !received.exists());
    assert_eq!(files.begin(&file).await, Err(Refused::Full));
    files.sweep().await.expect("is swept");
    assert!(fresh.exists() && !old.exists());
    assert_eq!(files.begin(&file).await, Ok(10));
}

#[tokio::test]
async fn a_full_room_takes_no_more_after_a_restart_and_another_does() {
    let dir = tempfile::tempdir().expect("a directory");
    make(&dir.path().join("rooms/Tea/large.bin"), 1 << 30, false);
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let transfers = TransfersStub::new(&member.connection);
    let whole = content(2000, 1);
    let file = upload("Tea", "f.bin", &whole);
    let full = |outcome: &Result<(), CallError<Refusal>>| {
        matches!(outcome, Err(CallError::App(Refusal { why: Refused::Full })))
    };
    let outcome = transfers.begin(&file).await.map(drop);
    assert!(full(&outcome), "{outcome:?}");
    let outcome = transfers.upload(&file, 0, whole.clone()).await;
    assert!(full(&outcome), "{outcome:?}");
    let refused = member.chat.upload_req("Tea", "f.bin", 2000).await;
    let refused = refused.expect("an answer").expect("is refused");
    assert!(refused.contains("space"), "{refused}");
    let refused = member.chat.recv_file("Tea", "f.bin", whole.clone()).await;
    let refused = refused.expect_err("is refused").to_string();
    assert!(refused.contains("space"), "{refused}");
    let listed = member.chat.list_files("Tea").await.expect("an answer");
    assert_eq!(listed, [(1 << 30, "large.bin".to_owned())]);
    let file = upload("Coffee", "f.bin", &whole);
    transfers.upload(&file, 0, whole).await.expect("is taken");
}

/// How many entries are in a directory; none where there is none.
fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[tokio::test]
async fn uploads_of_which_nothing_is_kept_use_up_no_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::new(dir.path());
    for room in 0..1000 {
        let file = upload(&format!("room {room}"), "f", b"ab");
        let outcome = files.upload(&file, 0, b"xy".to_vec().into()).await;
        assert_eq!(outcome, Err(Refused::Checksum));
    }
    let file = upload("Tea", "f", b"ab");
    let nothing = stream::iter([Err(hbi::Error::refusal("broken"))]);
    let outcome = files.upload(&file, 0, Data::stream(nothing)).await;
    assert!(matches!(outcome, Err(Refused::Failed(_))), "{outcome:?}");
    assert_eq!(count(&dir.path().join("partial")), 0);
    assert_eq!(files.begin(&file).await, Ok(0));
}

#[tokio::test]
async fn what_is_received_in_one_piece_goes_with_a_call_that_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let large = (1 << 30) - 3000;
    make(&dir.path().join("rooms/Tea/large.bin"), large, false);
    let files = Files::new(dir.path());
    files.count().await.expect("is counted");
    let (written, is_written) = oneshot::channel();
    // asked for more, it has written what came
    let more = stream::once(async {
        written.send(()).expect("is awaited");
        std::future::pending().await
    });
    let first = stream::iter([Ok::<_, hbi::Error>(Bytes::from_static(&[7; 2000]))]);
    let data = Data::stream(first.chain(more));
    tokio::select! {
        outcome = files.receive("Tea", "f", data) => panic!("{outcome:?}"),
        written = is_written => written.expect("is written"),
    }
    assert_eq!(count(&dir.path().join("partial")), 0);
    let outcome = files.receive("Tea", "f", vec![1; 3000].into()).await;
    assert_eq!(outcome, Ok((crc32fast::hash(&[1; 3000]), 3000)));
}

#[tokio::test]
async fn an_upload_goes_on_where_there_is_space_for_its_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = upload("Tea", "f.bin", b"");
    file.size = 256 << 20;
    let partial = dir.path().join("partial/Tea");
    let partial = partial.join(format!("f.bin.{}.{:08x}", file.size, file.crc));
    make(&partial, 200 << 20, false);
    let rooms = dir.path().join("rooms/Tea");
    make(&rooms.join("large.bin"), (1 << 30) - (256 << 20), false);
    let files = Files::new(dir.path());
    files.count().await.expect("is counted");
    assert_eq!(files.begin(&file).await, Ok(200 << 20));
    let mut other = upload("Tea", "other.bin", b"");
    other.size = 60 << 20;
    assert_eq!(files.begin(&other).await, Err(Refused::Full));
}

#[tokio::test]
async fn a_room_with_all_its_files_takes_one_that_is_among_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let rooms = dir.path().join("rooms/Tea");
    for n in 0..999 {
        make(&rooms.join(n.to_string()), 1, false);
    }
    let begun = upload("Tea", "begun", b"ab");
    let partial = format!("partial/Tea/begun.2.{:08x}", begun.crc);
    make(&dir.path().join(partial), 1, false);
    let files = Files::new(dir.path());
    files.count().await.expect("is counted");
    assert_eq!(files.begin(&begun).await, Ok(1));
    let other = upload("Tea", "other", b"ab");
    assert_eq!(files.begin(&other).await, Err(Refused::Full));
    assert_eq!(files.begin(&upload("Tea", "7", b"ab")).await, Ok(0));
}

#[tokio::test]
async fn what_is_none_of_its_files_does_not_keep_a_server_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    make(&dir.path().join("rooms/notes.txt"), 1, false);
    make(&dir.path().join("partial/.DS_Store"), 1, false);
    make(&dir.path().join("rooms/Tea/f.bin"), 7, false);
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let listed = member.chat.list_files("Tea").await.expect("an answer");
    assert_eq!(listed, [(7, "f.bin".to_owned())]);
}

#[tokio::test]
async fn only_so_many_files_are_on_their_way_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Files::new(dir.path());
    let member = Arc::new(Semaphore::new(1000));
    let turn = || {
        let of_member = Arc::clone(&member).try_acquire_owned();
        files.turn(of_member.expect("there are enough"))
    };
    let mut turns: Vec<_> = (0..256).map(|_| turn().expect("is free")).collect();
    assert!(matches!(turn(), Err(Refused::Crowded(256))));
    turns.pop();
    assert!(turn().is_ok());
}

#[tokio::test]
async fn downloads_that_nobody_reads_hold_up_that_member_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let stuck = Member::join(&address, "stuck", "Tea").await;
    // more than its window lets go
    let whole = content(1_000_000, 1);
    let sent = stuck.chat.recv_file("Tea", "f", whole.clone()).await;
    sent.expect("is taken");
    let transfers = TransfersStub::new(&stuck.connection);
    let mut unread = Vec::new();
    for _ in 0..8 {
        let (_, data) = transfers.download("Tea", "f", 0).await.expect("is there");
        unread.push(data);
    }
    let mut ninth = pin!(async { transfers.download("Tea", "f", 0).await });
    assert!(poll!(&mut ninth).is_pending());

    let other = Member::join(&address, "other", "Tea").await;
    let others = TransfersStub::new(&other.connection);
    // read to their ends, no number of them is too many
    for _ in 0..20 {
        let (_, data) = others.download("Tea", "f", 0).await.expect("is there");
        assert!(data.to_bytes(1 << 20).await.expect("arrives") == whole);
    }
    assert!(poll!(&mut ninth).is_pending());
    unread.pop();
    let (_, data) = ninth.await.expect("is there");
    assert!(data.to_bytes(1 << 20).await.expect("arrives") == whole);
}
