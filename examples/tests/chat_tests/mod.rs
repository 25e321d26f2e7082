//! The tests of the chat, and what they share.

mod files;
mod flat;
mod hostile;
mod killed;
mod leaving;
mod plain;
mod process;
mod recorded;
mod session;
mod stuck;

use std::{path::Path, time::Duration};

use hbi::{Connection, prelude::*};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    protocol::{ChatStub, Chatter, ChatterHost, Msg, MsgsInRoom, Upload},
    server::{self, Serving},
};

/// Within this all comes that is waited for; no test passes because of it.
const SOON: Duration = Duration::from_secs(60);

/// What a chatter was told.
#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Nick(String),
    Room(String),
    Notice(String),
    Line(Msg),
    Joined(String),
    Left(String),
    Said(i64),
}

/// Tells the test what it is told.
struct Ear(mpsc::UnboundedSender<Heard>);

impl Ear {
    fn tell(&self, heard: Heard) {
        // a test that is over hears nothing more
        let _ = self.0.send(heard);
    }
}

impl Chatter for Ear {
    async fn nick_changed(&self, nick: String) {
        self.tell(Heard::Nick(nick));
    }

    async fn in_room(&self, room: String) {
        self.tell(Heard::Room(room));
    }

    async fn show_notice(&self, text: String) {
        self.tell(Heard::Notice(text));
    }

    async fn room_msgs(&self, said: MsgsInRoom) {
        said.msgs
            .into_iter()
            .for_each(|msg| self.tell(Heard::Line(msg)));
    }

    async fn chatter_joined(&self, nick: String, _room: String) {
        self.tell(Heard::Joined(nick));
    }

    async fn chatter_left(&self, nick: String, _room: String) {
        self.tell(Heard::Left(nick));
    }

    async fn said(&self, id: i64) {
        self.tell(Heard::Said(id));
    }
}

/// A chatter of the tests.
struct Member {
    connection: Connection,
    chat: ChatStub,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// What a chatter of the tests hosts, and hears.
fn ear() -> (HostingEnv, mpsc::UnboundedReceiver<Heard>) {
    let (tell, heard) = mpsc::unbounded_channel();
    let env = HostingEnv::new()
        .service(ChatterHost::new(Ear(tell)))
        .constructor::<Msg>()
        .constructor::<MsgsInRoom>();
    (env, heard)
}

impl Member {
    async fn join(address: &str, nick: &str, room: &str) -> Self {
        let (env, heard) = ear();
        let connection = hbi::connect(address, env).await.expect("connects");
        Self::new(connection, heard, nick, room).await
    }

    async fn new(
        connection: Connection,
        heard: mpsc::UnboundedReceiver<Heard>,
        nick: &str,
        room: &str,
    ) -> Self {
        let chat = ChatStub::new(&connection);
        let mut member = Self {
            connection,
            chat,
            heard,
        };
        assert_eq!(member.chat.set_nick(nick).await.expect("an answer"), nick);
        member.chat.goto_room(room).await.expect("an answer");
        member
            .hear(|heard| *heard == Heard::Room(room.into()))
            .await;
        member
    }

    async fn say(&self, id: i64, text: &str) -> hbi::Result<()> {
        self.chat.say(id, text.as_bytes().to_vec()).await
    }

    /// The next that it hears.
    async fn next(&mut self) -> Heard {
        let next = timeout(SOON, self.heard.recv()).await;
        next.expect("heard soon").expect("heard")
    }

    /// Waits for something; what it heard before is dropped.
    async fn hear(&mut self, is_it: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            let heard = self.next().await;
            if is_it(&heard) {
                return heard;
            }
        }
    }

    /// The next line that somebody else says.
    async fn line(&mut self) -> Msg {
        let line = self.hear(|heard| matches!(heard, Heard::Line(_))).await;
        match line {
            Heard::Line(msg) => msg,
            other => unreachable!("{other:?}"),
        }
    }
}

/// Serves at a port of its own; the address.
async fn serve(dir: &Path) -> (Serving, String) {
    let addresses = ["tcp://127.0.0.1:0".to_owned()];
    let serving = server::serve(&addresses, dir).await.expect("serves");
    let address = serving.addresses().remove(0);
    (serving, address)
}

/// A file's description.
fn upload(room: &str, name: &str, content: &[u8]) -> Upload {
    Upload {
        room: room.into(),
        name: name.into(),
        size: content.len() as u64,
        crc: crc32fast::hash(content),
    }
}

/// Bytes of which no part looks like another.
fn content(len: usize, seed: u32) -> Vec<u8> {
    let word = |n: u32| crc32fast::hash(&[n.to_le_bytes(), seed.to_le_bytes()].concat());
    let words = (0..).flat_map(|n| word(n).to_le_bytes());
    words.take(len).collect()
}
