//! A session at servers that answer what is not so, or late: it says so, and goes on.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hbi::{Data, Server, prelude::*};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{command::Command, event::Event, session::Session};
use crate::{
    protocol::{FILE, FileInfo, Refusal, Transfers, TransfersHost, Upload},
    server,
};

/// Within this all comes that is waited for; no test passes because of it.
const SOON: Duration = Duration::from_secs(60);

/// A server of one file, which wants an upload to go on behind its end.
struct Odd {
    info: FileInfo,
    downloads: Mutex<Vec<Data>>,
}

impl Transfers for Odd {
    async fn begin(&self, file: Upload) -> Result<u64, Refusal> {
        Ok(file.size + 1)
    }

    async fn upload(&self, _file: Upload, _from: u64, _data: Data) -> Result<(), Refusal> {
        Ok(())
    }

    async fn download(
        &self,
        _room: String,
        _name: String,
        _from: u64,
    ) -> Result<(FileInfo, Data), Refusal> {
        let next = self.downloads.lock().expect("not poisoned").pop();
        Ok((self.info, next.unwrap_or(Vec::new().into())))
    }
}

/// A session, and what it tells.
struct Told {
    session: Session,
    events: mpsc::Receiver<Event>,
}

impl Told {
    async fn new(address: &str, files: &Path) -> Self {
        let (tell, events) = mpsc::channel(1000);
        let session = Session::connect(address, files.to_owned(), tell).await;
        let session = session.expect("connects");
        Self { session, events }
    }

    async fn next(&mut self) -> Event {
        let next = timeout(SOON, self.events.recv()).await;
        next.expect("told soon").expect("told")
    }

    /// Does what was typed; what is told of it first.
    async fn answer(&mut self, command: Command) -> Event {
        let done = timeout(SOON, self.session.execute(command)).await;
        done.expect("is done soon");
        self.next().await
    }

    /// Gets the file; how that ended.
    async fn get(&mut self, name: &str) -> Result<String, String> {
        let started = self.answer(Command::Download(name.into())).await;
        assert!(matches!(started, Event::Started(_)), "{started:?}");
        match self.next().await {
            Event::Ended { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }
}

/// A session at a server of one file, whose downloads give this; the last first.
async fn odd(
    address: &str,
    files: &Path,
    size: u64,
    crc: u32,
    downloads: Vec<Data>,
) -> (Server, Told) {
    let info = FileInfo {
        size,
        crc,
        changed: 0,
    };
    let odd = Arc::new(Odd {
        info,
        downloads: Mutex::new(downloads),
    });
    let factory = move |_peer| {
        let env = HostingEnv::new().service(TransfersHost::new(Arc::clone(&odd)));
        std::future::ready(Ok(env))
    };
    let server = hbi::serve(address, factory).await.expect("serves");
    (server, Told::new(address, files).await)
}

fn failure(event: Event) -> String {
    match event {
        Event::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_upload_that_should_go_on_behind_its_end_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("f"), "abc").expect("a file");
    let (_server, mut told) = odd("mem://chat-behind", dir.path(), 0, 0, Vec::new()).await;
    let why = failure(told.answer(Command::Upload("f".into())).await);
    assert_eq!(why, "the server wants byte 4 of a file of 3 bytes");
    let why = failure(told.answer(Command::Upload(String::new())).await);
    assert_eq!(why, "`> file` takes a file's name");
}

#[tokio::test]
async fn no_more_of_a_file_is_taken_than_was_announced() {
    let dir = tempfile::tempdir().expect("a directory");
    let much = stream::iter([Ok::<_, hbi::Error>(Bytes::from_static(&[7; 5000]))]);
    let endless = Data::stream(much.chain(stream::pending()));
    let (_server, mut told) = odd("mem://chat-endless", dir.path(), 10, 0, vec![endless]).await;
    let why = told.get("f").await.expect_err("is too long");
    assert!(why.contains("checksum"), "{why}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 0);

    let (_server, mut told) = odd("mem://chat-large", dir.path(), FILE + 1, 0, Vec::new()).await;
    let why = failure(told.answer(Command::Download("f".into())).await);
    assert!(why.contains("too many"), "{why}");
}

#[tokio::test]
async fn a_file_is_got_once_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole: Bytes = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (size, crc) = (whole.len() as u64, crc32fast::hash(&whole));
    let (go_on, gate) = oneshot::channel::<()>();
    let rest = whole.slice(1000..);
    let rest = stream::once(async move {
        // the test says when
        let _ = gate.await;
        Ok(rest)
    });
    let first = stream::iter([Ok::<_, hbi::Error>(whole.slice(..1000))]);
    let slow = Data::stream(first.chain(rest));
    let other = Data::from(whole.clone());
    let downloads = vec![other, slow];
    let (_server, told) = odd("mem://chat-twice", dir.path(), size, crc, downloads).await;
    let Told {
        session,
        mut events,
    } = told;
    let get = || session.execute(Command::Download("f".into()));
    let meanwhile = async {
        let started = events.recv().await.expect("told");
        let Event::Started(transfer) = started else {
            panic!("{started:?}");
        };
        while transfer.passed.len() < 1000 {
            tokio::task::yield_now().await;
        }
        get().await;
        let why = failure(events.recv().await.expect("told"));
        assert_eq!(why, "f is on its way already");
        go_on.send(()).expect("is awaited");
        events.recv().await.expect("told")
    };
    let both = async { tokio::join!(get(), meanwhile) };
    let ((), ended) = timeout(SOON, both).await.expect("ends soon");
    assert!(
        matches!(ended, Event::Ended { outcome: Ok(_), .. }),
        "{ended:?}"
    );
    assert!(std::fs::read(dir.path().join("f")).expect("a file") == whole);
    assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 1);
}

#[tokio::test]
async fn a_file_that_came_takes_the_place_of_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("f")).expect("a directory");
    std::fs::write(dir.path().join("f~2"), "xyz").expect("a file");
    let crc = crc32fast::hash(b"abc");
    let downloads = vec![Data::from("abc"), Data::from("abc")];
    let (_server, mut told) = odd("mem://chat-place", dir.path(), 3, crc, downloads).await;
    for _ in 0..2 {
        let done = told.get("f").await.expect("is there");
        assert!(done.starts_with("f~3: 3 bytes here"), "{done}");
    }
    let kept = std::fs::read_to_string(dir.path().join("f~2"));
    assert_eq!(kept.expect("a file"), "xyz");
}

#[tokio::test]
async fn what_bots_say_over_a_session_is_nothing_that_its_person_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let addresses = ["mem://chat-bots".to_owned()];
    let _serving = server::serve(&addresses, dir.path()).await.expect("serves");
    let mut told = Told::new(&addresses[0], dir.path()).await;
    told.session.execute(Command::Spam("2 3 0".into())).await;
    let mut said = 0;
    while said < 6 {
        match told.next().await {
            Event::Said(id) => {
                assert!(id < 0, "{id}");
                said += 1;
            }
            Event::Failed(why) => panic!("{why}"),
            _ => {}
        }
    }
}
