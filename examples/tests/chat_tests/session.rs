//! What people see: a session over each transport, nicks, leaving, transfers that go on.

use futures_util::{StreamExt, stream};
use hbi::CallError;

use super::{Heard, Member, content, process::Program, serve, upload};
use crate::{
    protocol::{Refusal, Refused, RoomsStub, TransfersStub},
    server,
};

/// A line without what differs between runs and transports.
fn comparable(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    for word in &mut words {
        if word.starts_with("Stranger$") {
            *word = "STRANGER".into();
        }
    }
    let service = "this chat service at".split(' ').count();
    if let Some(at) = words.iter().position(|word| word == "service") {
        words[at + service - 2] = "ADDRESS".into();
    }
    words.join(" ").replace("STRANGER,", "STRANGER")
}

#[tokio::test]
async fn a_session_prints_the_same_over_each_transport() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let unix = format!("unix://{}", path("socket"));
    let addresses = [
        "tcp://127.0.0.1:0",
        &unix,
        "tls://127.0.0.1:0",
        "quic://127.0.0.1:0",
        "text+tcp://127.0.0.1:0",
    ];
    for (at, address) in addresses.into_iter().enumerate() {
        let kept = dir.path().join(format!("server{at}"));
        let serving = server::serve(&[address.to_owned()], &kept).await;
        let serving = serving.expect("serves");
        let address = serving.addresses().remove(0);
        let (here, there) = (path(&format!("ann{at}")), path(&format!("bob{at}")));
        std::fs::create_dir(&here).expect("a directory");
        let file = content(300_000, 1);
        std::fs::write(format!("{here}/some file.bin"), &file).expect("a file");

        let mut ann = Program::start(&["join", "--files", &here, "--plain", &address]);
        ann.expect("  -*-").await;
        ann.send("$Ann").await;
        ann.expect("* you are Ann").await;
        ann.send("#Tea").await;
        ann.expect("@@ You are in #Tea now").await;
        let how = [
            "--files", &there, "--plain", "--nick", "Ann", "--room", "Tea",
        ];
        let mut bob = Program::start(&[&["join"], &how[..], &[&address]].concat());
        bob.expect("@@ You are in #Tea now").await;
        ann.expect("+ Ann~2 came into #Tea").await;
        bob.send("$Bob").await;
        bob.expect("* you are Bob").await;
        ann.expect("@@ Ann~2 is known as Bob now.").await;
        ann.send("hello, it's \"quoted\" back\\slash é你好😀").await;
        bob.expect("<Ann>").await;
        ann.expect("<Ann>").await;
        bob.send(" #no room").await;
        ann.expect("<Bob>").await;
        bob.expect("<Bob>").await;
        ann.send(".").await;
        ann.expect("      300000  some file.bin").await;
        ann.send("> some file.bin").await;
        ann.expect("* some file.bin").await;
        bob.expect("<Ann> @*@").await;
        bob.send("^").await;
        bob.expect("      300000  some file.bin").await;
        bob.send("< some file.bin").await;
        bob.expect("* some file.bin").await;
        let came = std::fs::read(format!("{there}/some file.bin")).expect("a file");
        assert!(came == file);
        bob.send("< none").await;
        bob.expect("!").await;
        bob.send("> none").await;
        bob.expect("!").await;
        bob.send("#").await;
        bob.expect("@@ You are in #Lobby now").await;
        ann.expect("- Bob left #Tea").await;
        let (mut ann, mut bob) = (ann.end().await, bob.end().await);

        for lines in [&mut ann, &mut bob] {
            *lines = lines.iter().map(|line| comparable(line)).collect();
        }
        // bob asked for a nick before he was welcomed: that answer and the welcome may cross
        let nick = bob.iter().position(|line| line == "* you are Ann~2");
        let nick = bob.remove(nick.expect("has the nick"));
        let room = bob.iter().position(|line| line == "* you are in #Tea");
        bob.insert(room.expect("is in the room"), nick);
        let crc = crc32fast::hash(&file);
        let uploaded = format!("<Ann> @*@ I just uploaded a file {crc:08x} 293 KB [some file.bin]");
        let welcome = [
            "* you are STRANGER",
            "* you are in #Lobby",
            "@@ Welcome STRANGER this is chat service at ADDRESS !",
            " -",
        ];
        let said = "<Ann> hello, it's \"quoted\" back\\slash é你好😀";
        let sent = format!("* some file.bin: 300000 bytes sent, CRC-32 {crc:08x}");
        let got = format!("* some file.bin: 300000 bytes here, CRC-32 {crc:08x}");
        let expected = [
            &welcome[..],
            &[
                "@@ There're 1 room(s) open, and you are in #Lobby now.",
                "  -*- 0 chatter(s) in room #Lobby",
                "* you are Ann",
                "* you are in #Tea",
                "@@ You are in #Tea now, 1 chatter(s).",
                "+ Ann~2 came into #Tea",
                "@@ Ann~2 is known as Bob now.",
                said,
                "<Bob> #no room",
                &format!("files in {here}: 1"),
                "      300000  some file.bin",
                "* sending some file.bin, 300000 bytes",
                &sent,
                "- Bob left #Tea",
            ],
        ];
        assert_eq!(ann, expected.concat(), "{address}");
        let missing = format!("! cannot send {there}/none: No such file or directory (os error 2)");
        let expected = [
            &welcome[..],
            &[
                "@@ There're 2 room(s) open, and you are in #Lobby now.",
                "  -*- 0 chatter(s) in room #Lobby",
                "  -*- 1 chatter(s) in room #Tea",
                "* you are Ann~2",
                "* you are in #Tea",
                "@@ You are in #Tea now, 2 chatter(s).",
                "* you are Bob",
                said,
                "<Bob> #no room",
                &uploaded,
                "files of #Tea: 1",
                "      300000  some file.bin",
                "* getting some file.bin, 300000 bytes",
                &got,
                "! no such file: none",
                &missing,
                "* you are in #Lobby",
                "@@ You are in #Lobby now, 1 chatter(s).",
            ],
        ];
        assert_eq!(bob, expected.concat(), "{address}");
        serving.shutdown().await;
    }
}

#[tokio::test]
async fn nicks_are_one_persons_own_and_free_again_when_it_leaves() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let ann = Member::join(&address, "Ann", "Tea").await;
    let mut bob = Member::join(&address, "Bob", "Tea").await;
    assert_eq!(bob.chat.set_nick("ann").await.expect("an answer"), "ann~2");
    assert_eq!(
        bob.chat.set_nick("server").await.expect("an answer"),
        "not the server"
    );
    let stranger = bob.chat.set_nick("").await.expect("an answer");
    assert!(stranger.starts_with("Stranger$"), "{stranger}");
    let members = RoomsStub::new(&bob.connection).members("Tea").await;
    assert_eq!(members.expect("an answer"), ["Ann", &stranger]);
    drop(ann);
    bob.hear(|heard| *heard == Heard::Left("Ann".into())).await;
    assert_eq!(bob.chat.set_nick("Ann").await.expect("an answer"), "Ann");
}

#[tokio::test]
async fn all_of_a_room_hear_one_order_and_who_comes_reads_what_was_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let mut first = Member::join(&address, "first", "Tea").await;
    let mut second = Member::join(&address, "second", "Tea").await;
    let mut said = Vec::new();
    for speaker in 0..4 {
        let address = address.clone();
        said.push(tokio::spawn(async move {
            let member = Member::join(&address, &format!("speaker{speaker}"), "Tea").await;
            for n in 0..75 {
                member
                    .say(n, &format!("{speaker}.{n}"))
                    .await
                    .expect("is said");
            }
            member
        }));
    }
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        ones.push(first.line().await.text);
        others.push(second.line().await.text);
    }
    assert_eq!(ones, others);
    let mut late = Member::join(&address, "late", "Tea").await;
    let mut read = Vec::new();
    for _ in 0..200 {
        read.push(late.line().await.text);
    }
    assert_eq!(read, ones[100..]);
    for member in said {
        member.await.expect("speaks");
    }
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let transfers = TransfersStub::new(&member.connection);
    let whole = content(1_000_000, 7);
    let file = upload("Tea", "f.bin", &whole);

    let half = bytes::Bytes::from(whole[..500_000].to_vec());
    let (break_off, broken) = tokio::sync::oneshot::channel();
    let failing = stream::once(async {
        // whoever holds the other half says when
        let _ = broken.await;
        Err(hbi::Error::refusal("the disk fell out"))
    });
    let data = hbi::Data::stream(stream::iter([Ok(half)]).chain(failing));
    let half_arrives = async {
        while transfers.begin(&file).await.expect("an answer") < 500_000 {}
        break_off.send(()).expect("is awaited");
    };
    let (outcome, ()) = tokio::join!(transfers.upload(&file, 0, data), half_arrives);
    assert!(
        matches!(
            outcome,
            Err(CallError::App(Refusal {
                why: Refused::Failed(_)
            }))
        ),
        "{outcome:?}"
    );
    assert!(
        member
            .chat
            .list_files("Tea")
            .await
            .expect("an answer")
            .is_empty()
    );

    let from = transfers.begin(&file).await.expect("an answer");
    assert_eq!(from, 500_000);
    let outcome = transfers.upload(&file, 10, whole[10..].to_vec()).await;
    assert!(
        matches!(
            outcome,
            Err(CallError::App(Refusal {
                why: Refused::Position(500_000)
            }))
        ),
        "{outcome:?}"
    );
    // another file of the same name does not go on with it
    assert_eq!(
        transfers
            .begin(upload("Tea", "f.bin", b"other"))
            .await
            .expect("an answer"),
        0
    );

    transfers
        .upload(&file, from, whole[500_000..].to_vec())
        .await
        .expect("is taken");
    let (info, data) = transfers
        .download("Tea", "f.bin", 400_000)
        .await
        .expect("is there");
    assert_eq!((info.size, info.crc), (file.size, file.crc));
    assert!(data.to_bytes(1 << 20).await.expect("arrives") == whole[400_000..]);
}

#[tokio::test]
async fn what_is_not_what_was_announced_is_not_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let member = Member::join(&address, "Ann", "Tea").await;
    let transfers = TransfersStub::new(&member.connection);
    let file = upload("Tea", "f.bin", &content(100_000, 7));
    for wrong in [content(100_000, 8), content(99_999, 7), content(100_001, 7)] {
        let outcome = transfers.upload(&file, 0, wrong).await;
        assert!(
            matches!(
                outcome,
                Err(CallError::App(Refusal {
                    why: Refused::Checksum
                }))
            ),
            "{outcome:?}"
        );
        assert_eq!(transfers.begin(&file).await.expect("an answer"), 0);
    }
    let mut large = file.clone();
    large.size = 1 << 40;
    let outcome = transfers.begin(large).await;
    assert!(
        matches!(
            outcome,
            Err(CallError::App(Refusal {
                why: Refused::TooLarge(_)
            }))
        ),
        "{outcome:?}"
    );
    assert!(
        member
            .chat
            .list_files("Tea")
            .await
            .expect("an answer")
            .is_empty()
    );
}

#[tokio::test]
async fn a_download_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(&dir.path().join("server")).await;
    let member = Member::join(&address, "Ann", "Lobby").await;
    let whole = content(1_000_000, 9);
    let crc = member.chat.recv_file("Lobby", "f.bin", whole.clone()).await;
    let crc = crc.expect("is taken");
    let files = dir.path().join("files");
    std::fs::create_dir(&files).expect("a directory");
    let partial = files.join(format!(".f.bin.{crc:08x}.part"));
    std::fs::write(&partial, &whole[..600_000]).expect("a file");
    std::fs::write(files.join("f.bin"), "another one, which stays").expect("a file");

    let directory = files.display().to_string();
    let mut bob = Program::start(&["join", "--plain", "--files", &directory, &address]);
    bob.send("< f.bin").await;
    let done = bob.expect("* f.bin").await;
    assert_eq!(
        done,
        format!("* f.bin~2: 1000000 bytes here, CRC-32 {crc:08x}, went on at 600000")
    );
    bob.end().await;
    assert!(std::fs::read(files.join("f.bin~2")).expect("a file") == whole);
    assert!(!partial.exists());
}

#[tokio::test]
async fn bots_say_and_send_and_every_checksum_is_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let few = [
        "--bots", "4", "--rooms", "2", "--msgs", "12", "--files", "3",
    ];
    for share in [&[][..], &["--share"]] {
        let how = [&["spam", &address, "--file-kb", "1..64"][..], &few, share].concat();
        let printed = Program::start(&how).end().await;
        let has = |start: &str| printed.iter().any(|line| line.starts_with(start));
        assert!(has("said    48 lines"), "{printed:#?}");
        assert!(
            has("files   12 up and back, every checksum verified"),
            "{printed:#?}"
        );
        assert!(has("failed  0"), "{printed:#?}");
    }
}

#[tokio::test]
async fn a_file_is_announced_in_its_own_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_serving, address) = serve(dir.path()).await;
    let ann = Member::join(&address, "Ann", "Tea").await;
    let mut tea = Member::join(&address, "Bob", "Tea").await;
    let mut coffee = Member::join(&address, "Cid", "Coffee").await;
    let transfers = TransfersStub::new(&ann.connection);
    let file = upload("Coffee", "f.bin", b"abc");
    let sent = transfers.upload(&file, 0, b"abc".to_vec()).await;
    sent.expect("is taken");
    let sent = ann.chat.recv_file("Coffee", "g.bin", b"abc".to_vec()).await;
    sent.expect("is taken");
    ann.say(1, "here").await.expect("is said");
    for name in ["[f.bin]", "[g.bin]"] {
        let announced = coffee.line().await;
        assert!(announced.text.contains(name), "{announced:?}");
    }
    assert_eq!(tea.line().await.text, "here");
}
