//! All of the chat's protocol: what the server hosts, and what each chatter hosts for the server.
//!
//! [`Chat`] and [`Chatter`] have the flat names and the forms of arguments of the chat clients and
//! servers that exist in Python and Go, and over the text wire nothing else is called. [`Rooms`] and
//! [`Transfers`] are for peers over the other wires, with typed errors and what those lack.

use std::fmt;

use anyhow::Context;
use hbi::{Data, Options, Settings, prelude::*};
use serde::{Deserialize, Serialize};

/// The room where everybody comes in.
pub(crate) const LOBBY: &str = "Lobby";

/// The longest line, in bytes.
pub(crate) const LINE: usize = 4096;

/// The largest file, in bytes.
pub(crate) const FILE: u64 = 256 << 20;

/// What one chatter said.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
pub(crate) struct Msg {
    /// Who.
    pub(crate) from: String,
    /// What.
    pub(crate) text: String,
    /// When, in seconds since 1970.
    pub(crate) time: f64,
}

/// What was said in a room, the oldest first.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
pub(crate) struct MsgsInRoom {
    /// The room.
    pub(crate) room: String,
    /// What was said there.
    pub(crate) msgs: Vec<Msg>,
}

/// What the server hosts for every kind of chatter.
#[hbi::service(flat)]
pub(crate) trait Chat {
    /// Takes a nick, or none; answers the one that it has become.
    #[hbi(rename = "SetNick")]
    async fn set_nick(&self, nick: String) -> String;
    /// Goes to another room, or to the lobby; `InRoom`, `ShowNotice` and `RoomMsgs` are pushed.
    #[hbi(rename = "GotoRoom")]
    async fn goto_room(&self, room: String);
    /// Says a line in the room. Its end acknowledges it, and so does `Said`, with the same number.
    #[hbi(rename = "Say")]
    async fn say(&self, id: i64, text: Data) -> hbi::Result<()>;
    /// Asks whether a file would be taken; answers why not.
    #[hbi(rename = "UploadReq")]
    async fn upload_req(&self, room: String, name: String, size: u64) -> Option<String>;
    /// Takes a file; answers its CRC-32.
    #[hbi(rename = "RecvFile")]
    async fn recv_file(&self, room: String, name: String, data: Data) -> hbi::Result<u32>;
    /// The files of a room: sizes and names.
    #[hbi(rename = "ListFiles")]
    async fn list_files(&self, room: String) -> Vec<(u64, String)>;
    /// Gives a file: its size and a message, its bytes, its CRC-32; a size of -1 refuses.
    #[hbi(converse, rename = "SendFile")]
    async fn send_file(&self, co: HoCo, room: String, name: String) -> hbi::Result<()>;
}

/// What a chatter hosts for the server.
#[hbi::service(flat)]
pub(crate) trait Chatter {
    /// You have another nick now.
    #[hbi(notify, rename = "NickChanged")]
    async fn nick_changed(&self, nick: String);
    /// You are in this room now.
    #[hbi(notify, rename = "InRoom")]
    async fn in_room(&self, room: String);
    /// Something to be shown.
    #[hbi(notify, rename = "ShowNotice")]
    async fn show_notice(&self, text: String);
    /// Others said something.
    #[hbi(notify, rename = "RoomMsgs")]
    async fn room_msgs(&self, said: MsgsInRoom);
    /// Somebody came into the room.
    #[hbi(notify, rename = "ChatterJoined")]
    async fn chatter_joined(&self, nick: String, room: String);
    /// Somebody left the room.
    #[hbi(notify, rename = "ChatterLeft")]
    async fn chatter_left(&self, nick: String, room: String);
    /// What you said under this number is kept, and on its way to the others.
    #[hbi(notify, rename = "Said")]
    async fn said(&self, id: i64);
}

/// Who is where.
#[hbi::service]
pub(crate) trait Rooms {
    /// The nicks in a room, in order.
    async fn members(&self, room: String) -> Vec<String>;
    /// The rooms that are open, and how many chatters are in each.
    async fn open(&self) -> Vec<(String, u64)>;
}

/// A file that is sent up: what it will be as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    /// For which room.
    pub(crate) room: String,
    /// Its name.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its CRC-32.
    pub(crate) crc: u32,
}

impl Upload {
    /// How many bytes follow the one that the server wants it to go on at.
    pub(crate) fn rest(&self, from: u64) -> anyhow::Result<u64> {
        let size = self.size;
        let rest = size.checked_sub(from);
        rest.with_context(|| format!("the server wants byte {from} of a file of {size} bytes"))
    }
}

/// A file that is sent down.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct FileInfo {
    /// Its bytes.
    pub(crate) size: u64,
    /// The CRC-32 of all of them.
    pub(crate) crc: u32,
    /// When it was changed last, in seconds since 1970.
    pub(crate) changed: u64,
}

/// Files up and down, which go on where they were interrupted.
#[hbi::service]
pub(crate) trait Transfers {
    /// Asks whether a file is taken, and from which byte on: what came before is there already.
    async fn begin(&self, file: Upload) -> Result<u64, Refusal>;
    /// Takes a file from a byte on. When it is answered the file is complete, checked, and kept.
    async fn upload(&self, file: Upload, from: u64, data: Data) -> Result<(), Refusal>;
    /// Gives a file from a byte on.
    async fn download(
        &self,
        room: String,
        name: String,
        from: u64,
    ) -> Result<(FileInfo, Data), Refusal>;
}

/// How a chatter connects: it lets the server push only so much at once, so that the server holds no
/// more than a few megabytes for a chatter that does not keep up, and tells it what it missed.
pub(crate) fn chatter_options() -> Options {
    let mut settings = Settings::default();
    settings.conversations = 256;
    Options::new().settings(settings)
}

/// Why a file is not taken or given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Refused {
    /// There is no such file.
    Missing(String),
    /// It cannot have this name.
    Name(String),
    /// It has more bytes than this.
    TooLarge(u64),
    /// The room has no space for it.
    Full,
    /// Somebody sends this very file already.
    Busy,
    /// So many files are on their way already.
    Crowded(usize),
    /// The transfer starts where it cannot go on; it should start at this byte.
    Position(u64),
    /// What arrived is not what was announced.
    Checksum,
    /// The transfer broke off, or the disk failed.
    Failed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "no such file: {name}"),
            Self::Name(why) => write!(f, "no file can have this name: {why}"),
            Self::TooLarge(limit) => write!(f, "file too large: at most {limit} bytes"),
            Self::Full => f.write_str("there is no space for it in the room, or on the server"),
            Self::Busy => f.write_str("the same file is being sent already"),
            Self::Crowded(many) => {
                write!(f, "{many} files are on their way already, try again later")
            }
            Self::Position(at) => write!(f, "it goes on at byte {at}"),
            Self::Checksum => f.write_str("the checksum does not match, send it again"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The error of a transfer. A `Value` arrives typed over each wire.
#[derive(Debug, Clone, PartialEq, hbi::Value)]
pub(crate) struct Refusal {
    /// Why.
    pub(crate) why: Refused,
}

impl From<Refused> for Refusal {
    fn from(why: Refused) -> Self {
        Self { why }
    }
}

impl std::error::Error for Refused {}

/// What went wrong, to be shown to people: a `Value` shows itself as a script would write it.
pub(crate) fn readable(error: CallError<Refusal>) -> anyhow::Error {
    match error {
        CallError::App(refusal) => refusal.why.into(),
        CallError::Hbi(error) => error.into(),
    }
}
