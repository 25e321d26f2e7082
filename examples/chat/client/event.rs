//! What happens in a session: pushed by the server, or the outcome of a command.

use std::sync::Arc;

use hbi_examples::Sum;
use tokio::sync::{mpsc, watch};

use super::input::Wanted;
use crate::protocol::{Chatter, MsgsInRoom};

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// You have this nick now.
    Nick(String),
    /// You are in this room now.
    Room(String),
    /// The server has something to show.
    Notice(String),
    /// Others said something.
    Lines(MsgsInRoom),
    /// Somebody came into a room.
    Joined { nick: String, room: String },
    /// Somebody left a room.
    Left { nick: String, room: String },
    /// What you said under this number is kept.
    Said(i64),
    /// Who is in the room.
    Members(Vec<String>),
    /// What may complete the line that is typed.
    Candidates(Wanted, Vec<String>),
    /// What a command answers.
    Answer(String),
    /// What went wrong.
    Failed(String),
    /// A file is on its way.
    Started(Transfer),
    /// A file is there, or not.
    Ended {
        id: u64,
        outcome: Result<String, String>,
    },
    /// The connection is gone, and why.
    Gone(String),
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Tells it from others.
    pub(super) id: u64,
    /// The file.
    pub(super) name: String,
    /// Whether it is sent up, or down.
    pub(super) up: bool,
    /// Its bytes.
    pub(super) size: u64,
    /// What of it has passed.
    pub(super) passed: Arc<Sum>,
}

/// What the server pushes becomes events. Where too many wait, the server does.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) tell: mpsc::Sender<Event>,
    /// How often the server told where one is, and where that is.
    pub(super) place: watch::Sender<(u64, String)>,
}

impl Pushed {
    async fn tell(&self, event: Event) {
        // who has stopped listening is about to leave
        let _ = self.tell.send(event).await;
    }
}

impl Chatter for Pushed {
    async fn nick_changed(&self, nick: String) {
        self.tell(Event::Nick(nick)).await;
    }

    async fn in_room(&self, room: String) {
        self.tell(Event::Room(room.clone())).await;
        self.place.send_modify(|place| *place = (place.0 + 1, room));
    }

    async fn show_notice(&self, text: String) {
        self.tell(Event::Notice(text)).await;
    }

    async fn room_msgs(&self, said: MsgsInRoom) {
        self.tell(Event::Lines(said)).await;
    }

    async fn chatter_joined(&self, nick: String, room: String) {
        self.tell(Event::Joined { nick, room }).await;
    }

    async fn chatter_left(&self, nick: String, room: String) {
        self.tell(Event::Left { nick, room }).await;
    }

    async fn said(&self, id: i64) {
        self.tell(Event::Said(id)).await;
    }
}
