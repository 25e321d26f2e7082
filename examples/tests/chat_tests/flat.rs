//! The client and the bots at a server that has the flat calls only, as those in Python and Go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use hbi::{Data, prelude::*};

use super::{content, process::Program};
use crate::protocol::{Chat, ChatHost, ChatterStub};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server of files, where one hears nothing of others.
struct Small {
    peer: Peer,
    files: Files,
}

impl Small {
    fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.files.lock().expect("not poisoned").get(name).cloned()
    }
}

impl Chat for Small {
    async fn set_nick(&self, nick: String) -> String {
        nick
    }

    async fn goto_room(&self, room: String) {
        let told = ChatterStub::new(&self.peer).in_room(room).await;
        told.expect("is told");
    }

    async fn say(&self, id: i64, text: Data) -> hbi::Result<()> {
        text.to_bytes(4096).await?;
        ChatterStub::new(&self.peer).said(id).await
    }

    async fn upload_req(&self, _room: String, _name: String, size: u64) -> Option<String> {
        (size > 1 << 20).then(|| "file too large!".into())
    }

    async fn recv_file(&self, _room: String, name: String, data: Data) -> hbi::Result<u32> {
        let data = data.to_bytes(1 << 20).await?.to_vec();
        let crc = crc32fast::hash(&data);
        self.files.lock().expect("not poisoned").insert(name, data);
        Ok(crc)
    }

    async fn list_files(&self, _room: String) -> Vec<(u64, String)> {
        let files = self.files.lock().expect("not poisoned");
        let sized = files.iter().map(|(n, data)| (data.len() as u64, n.clone()));
        sized.collect()
    }

    async fn send_file(&self, co: HoCo, _room: String, name: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        let Some(data) = self.file(&name) else {
            co.send_obj(&(-1, "no such file")).await?;
            return co.close().await;
        };
        // one of them arrives as another than was sent
        let crc = crc32fast::hash(&data) ^ u32::from(name == "spoilt");
        co.send_obj(&(data.len(), "last modified: long ago"))
            .await?;
        co.send_data(data).await?;
        co.send_obj(&crc).await?;
        co.close().await
    }
}

async fn serve(files: &Files) -> hbi::Server {
    let files = Arc::clone(files);
    let factory = move |peer: Peer| {
        let files = Arc::clone(&files);
        let env = HostingEnv::new()
            .service(ChatHost::new(Small { peer, files }))
            .on_connect(|po| async move {
                po.notif("InRoom('Lobby')").await.expect("is told");
            });
        std::future::ready(Ok(env))
    };
    let served = hbi::serve("text+tcp://127.0.0.1:0", factory).await;
    served.expect("serves")
}

#[tokio::test]
async fn the_client_needs_no_more_than_the_flat_calls() {
    let files = Files::default();
    let server = serve(&files).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let (file, large) = (content(300_000, 1), content((1 << 20) + 1, 2));
    std::fs::write(path("one's file"), &file).expect("a file");
    std::fs::write(path("large"), large).expect("a file");
    let kept = vec![7; 5000];
    files
        .lock()
        .expect("not poisoned")
        .extend([("kept".into(), kept.clone()), ("spoilt".into(), kept)]);

    let here = dir.path().display().to_string();
    let address = server.address().to_string();
    let join = ["join", "--nick", "Ann", "--files", &here, "--plain"];
    let mut ann = Program::start(&[&join[..], &[&address]].concat());
    ann.expect("* you are Ann").await;
    ann.send("#Tea").await;
    ann.expect("* you are in #Tea").await;
    ann.send("hello").await;
    ann.expect("<Ann> hello").await;
    ann.send("> large").await;
    ann.expect("! file too large!").await;
    ann.send("> one's file").await;
    ann.expect("* one's file: 300000 bytes sent").await;
    ann.send("^").await;
    ann.expect("      300000  one's file").await;
    ann.send("< kept").await;
    ann.expect("* kept: 5000 bytes here").await;
    ann.send("< spoilt").await;
    ann.expect("! the checksum does not match").await;
    ann.send("< none").await;
    ann.expect("! no such file: none").await;
    ann.send("still here").await;
    ann.expect("<Ann> still here").await;
    ann.end().await;

    assert_eq!(files.lock().expect("not poisoned")["one's file"], file);
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["kept", "large", "one's file"]);
}

#[tokio::test]
async fn bots_need_no_more_than_the_flat_calls() {
    let files = Files::default();
    let server = serve(&files).await;
    let address = server.address().to_string();
    let spam = ["spam", "--bots", "3", "--msgs", "30", "--files", "2"];
    let mut bots = Program::start(&[&spam[..], &["--file-kb", "24..100", &address]].concat());
    bots.expect("files   6 up and back").await;
    bots.expect("failed  0").await;
    bots.end().await;
    assert_eq!(files.lock().expect("not poisoned").len(), 6);
}
