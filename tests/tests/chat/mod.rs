//! The chat of the recordings: its service, its consumers, and a room.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use hbi::prelude::*;
use tokio::sync::mpsc;

/// What one said.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
pub(crate) struct Msg {
    pub(crate) from: String,
    pub(crate) text: String,
    pub(crate) time: f64,
}

/// What was said in a room.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
pub(crate) struct MsgsInRoom {
    pub(crate) room: String,
    pub(crate) msgs: Vec<Msg>,
}

#[hbi::service(flat)]
pub(crate) trait Chat {
    #[hbi(rename = "SetNick")]
    async fn set_nick(&self, nick: String) -> String;
    #[hbi(converse, rename = "GotoRoom")]
    async fn goto_room(&self, co: HoCo, room: String) -> hbi::Result<()>;
    #[hbi(converse, rename = "Say")]
    async fn say(&self, co: HoCo, id: i64, size: u64) -> hbi::Result<()>;
    #[hbi(rename = "UploadReq")]
    async fn upload_req(&self, room: String, name: String, size: u64) -> Option<String>;
    #[hbi(rename = "RecvFile")]
    async fn recv_file(&self, room: String, name: String, data: hbi::Data) -> u32;
    #[hbi(rename = "ListFiles")]
    async fn list_files(&self, room: String) -> Vec<(u64, String)>;
    #[hbi(converse, rename = "SendFile")]
    async fn send_file(&self, co: HoCo, room: String, name: String) -> hbi::Result<()>;
}

#[hbi::service(flat)]
pub(crate) trait Consumer {
    #[hbi(notify, rename = "NickChanged")]
    fn nick_changed(&self, nick: String);
    #[hbi(notify, rename = "InRoom")]
    fn in_room(&self, room: String);
    #[hbi(notify, rename = "ShowNotice")]
    fn show_notice(&self, text: String);
    #[hbi(notify, rename = "RoomMsgs")]
    fn room_msgs(&self, room: MsgsInRoom);
    #[hbi(notify, rename = "Said")]
    fn said(&self, id: i64);
    #[hbi(notify, rename = "ChatterJoined")]
    fn chatter_joined(&self, nick: String, room: String);
    #[hbi(notify, rename = "ChatterLeft")]
    fn chatter_left(&self, nick: String, room: String);
}

/// Tells the test what it is told.
pub(crate) struct Me(pub(crate) mpsc::UnboundedSender<String>);

impl Me {
    fn tell(&self, line: String) {
        // a test that is over hears nothing more
        let _ = self.0.send(line);
    }
}

impl Consumer for Me {
    fn nick_changed(&self, nick: String) {
        self.tell(format!("nick {nick}"));
    }

    fn in_room(&self, room: String) {
        self.tell(format!("in {room}"));
    }

    fn show_notice(&self, text: String) {
        self.tell(text);
    }

    fn room_msgs(&self, room: MsgsInRoom) {
        self.tell(format!("{}: {} messages", room.room, room.msgs.len()));
        for msg in room.msgs {
            self.tell(format!("{}: {}", msg.from, msg.text));
        }
    }

    fn said(&self, id: i64) {
        self.tell(format!("said {id}"));
    }

    fn chatter_joined(&self, nick: String, room: String) {
        self.tell(format!("{nick} joined {room}"));
    }

    fn chatter_left(&self, nick: String, room: String) {
        self.tell(format!("{nick} left {room}"));
    }
}

/// What a chat server holds, and which of the recorded servers it talks like.
#[derive(Clone)]
pub(crate) struct Room {
    go: bool,
    talk: Vec<Msg>,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Room {
    pub(crate) fn python() -> Self {
        Self {
            go: false,
            talk: Vec::new(),
            files: Arc::default(),
        }
    }

    pub(crate) fn go() -> Self {
        Self {
            go: true,
            ..Self::python()
        }
    }

    /// Somebody is in the room already, and has talked.
    pub(crate) fn with_talk(mut self) -> Self {
        let lines = [
            "hello there",
            "it's \"quoted\" back\\slash [9#co_end] é你好😀",
        ];
        let said = |text: &str| Msg {
            from: "Nick".into(),
            text: text.into(),
            time: 1_795_398_990.25,
        };
        self.talk = lines.into_iter().map(said).collect();
        self
    }

    pub(crate) fn host(&self, peer: Peer) -> Host {
        Host {
            room: self.clone(),
            peer,
        }
    }

    /// What a peer is told when it comes.
    pub(crate) fn greeting(&self, address: &str) -> String {
        let rooms = if self.talk.is_empty() { 1 } else { 2 };
        let mut notice = format!(
            "\n@@ Welcome Stranger${address}, this is chat service at 127.0.0.1:3301 !\n -\n\
             @@ There're {rooms} room(s) open, and you are in #Lobby now.\n"
        );
        notice.push_str(match (self.go, self.talk.is_empty()) {
            (true, _) => "  -*-\t0 chatter(s) in room #Lobby\n",
            (false, true) => "\n  -*-\t0 chatter(s) in room #Lobby",
            (false, false) => {
                "\n  -*-\t0 chatter(s) in room #Lobby\n  -*-\t1 chatter(s) in room #Tea"
            }
        });
        format!(
            "NickChanged(\"Stranger${address}\")\nInRoom(\"Lobby\")\nShowNotice({})",
            written(&notice)
        )
    }
}

fn written<T: serde::Serialize + ?Sized>(value: &T) -> String {
    hbi::value::literal(value, hbi::Dialect::Python).expect("has a spelling")
}

/// Serves one peer.
pub(crate) struct Host {
    room: Room,
    peer: Peer,
}

impl Chat for Host {
    async fn set_nick(&self, nick: String) -> String {
        match (nick.is_empty(), self.room.go) {
            (false, _) => nick,
            (true, true) => format!("Stranger${}", self.peer.address()),
            (true, false) => format!("Anonymous@{}", self.peer.address()),
        }
    }

    async fn goto_room(&self, co: HoCo, room: String) -> hbi::Result<()> {
        let room = if room.is_empty() {
            "Lobby".to_owned()
        } else {
            room
        };
        let msgs = self.room.talk.clone();
        let chatters = if msgs.is_empty() { 1 } else { 2 };
        let notice = format!("\n@@ You are in #{room} now, {chatters} chatter(s).\n");
        let msgs = MsgsInRoom {
            room: room.clone(),
            msgs,
        };
        let mut co = co.start_send().await?;
        co.send_code(format!(
            "InRoom({})\nShowNotice({})\nRoomMsgs({})",
            written(&room),
            written(&notice),
            written(&msgs)
        ))
        .await?;
        co.close().await
    }

    async fn say(&self, mut co: HoCo, id: i64, size: u64) -> hbi::Result<()> {
        let mut text = Vec::new();
        co.recv_data_exact(&mut text, size).await?;
        assert_eq!(text.len() as u64, size);
        let mut co = co.start_send().await?;
        co.send_code(format!("Said({id})")).await?;
        co.close().await
    }

    async fn upload_req(&self, _room: String, _name: String, size: u64) -> Option<String> {
        (size < 1024).then(|| "file too small!".to_owned())
    }

    async fn recv_file(&self, _room: String, name: String, data: hbi::Data) -> u32 {
        let data = data.to_bytes(1 << 20).await.expect("the data arrives");
        let mut files = self.room.files.lock().expect("not poisoned");
        files.insert(name, data.to_vec());
        crc32(&data)
    }

    async fn list_files(&self, _room: String) -> Vec<(u64, String)> {
        let files = self.room.files.lock().expect("not poisoned");
        let files = files.iter();
        files
            .map(|(name, data)| (data.len() as u64, name.clone()))
            .collect()
    }

    async fn send_file(&self, co: HoCo, _room: String, name: String) -> hbi::Result<()> {
        let file = self
            .room
            .files
            .lock()
            .expect("not poisoned")
            .get(&name)
            .cloned();
        let mut co = co.start_send().await?;
        let Some(file) = file else {
            co.send_obj(&(-1, "no such file")).await?;
            return co.close().await;
        };
        let crc = crc32(&file);
        co.send_obj(&(file.len(), "last modified: 2026-11-23 01:56:31"))
            .await?;
        co.send_data(file).await?;
        co.send_obj(&crc).await?;
        co.close().await
    }
}

/// The file of the recordings, repeated as often as it takes.
pub(crate) fn file(len: usize) -> Vec<u8> {
    let recorded = include_bytes!("../../data/text-wire/session-py-client-py-server/c2s.bin");
    recorded[549..5549]
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

pub(crate) fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}
