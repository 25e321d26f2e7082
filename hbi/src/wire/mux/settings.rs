//! What each peer tells the other about its limits when a connection begins.

use std::time::Duration;

/// The limits and habits of one side of a mux connection, told to the peer in the preface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The largest frame body this side takes, in bytes. Default 65 KiB, so that
    /// 64 KiB of data and what stands before them are one; 16 KiB to 16 MiB.
    pub frame: u32,
    /// The largest message (arguments of a call, an answer, an item) this side takes, in bytes.
    /// Default 4 MiB. Larger things travel as `Data` or `Items`.
    pub message: u32,
    /// Bytes that may be on the way or waiting in one channel. Default 384 KiB: what two
    /// sockets' queues hold and what one read brings, so that bulk does not wait for it. A wider
    /// window suits a long fat link, a narrower one keeps latency beside bulk data low.
    pub window: u32,
    /// Bytes that may be on the way in all channels together. Default 4 MiB.
    pub connection_window: u32,
    /// Conversations that the peer may have open at once. Default 4,096; at most 8,388,608.
    pub conversations: u32,
    /// Scripts the peer may keep interned here. Default 4,096.
    pub scripts: u32,
    /// Streams that the peer may open within one conversation, those that ended included. Default 64.
    pub channels: u32,
    /// Objects of this side that the peer may hold at once. Default 4,096.
    pub objects: u32,
    /// Bytes of the peer's that this side holds, in channels that are not read and in arguments of
    /// what lands, before it takes no more than the connection's window until some are done with.
    /// Small openings (4 KiB) and ends still pass. Default 256 MiB. What came in part can be finished
    /// always, so that it is not less than twice `message`, or than `message` and `connection_window`
    /// where that is the larger. The peer is not told. Over QUIC the arguments of methods that run are
    /// not among it, as the guide's [limits](crate::guide::limits) say.
    pub held: u64,
    /// How long the connection may be silent before this side sends a ping. Default 15 s.
    pub keep_alive: Duration,
    /// How long nothing may arrive before the peer counts as dead. Default 45 s.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frame: 65 << 10,
            message: 4 << 20,
            window: 384 << 10,
            connection_window: 4 << 20,
            conversations: 4_096,
            scripts: 4_096,
            channels: 64,
            objects: 4_096,
            held: 256 << 20,
            keep_alive: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(45),
        }
    }
}

/// Keys of the settings on the wire; unknown ones are ignored.
const FRAME: u16 = 1;
const MESSAGE: u16 = 2;
const WINDOW: u16 = 3;
const CONNECTION_WINDOW: u16 = 4;
const CONVERSATIONS: u16 = 5;
const SCRIPTS: u16 = 6;
const CHANNELS: u16 = 7;
const OBJECTS: u16 = 8;

impl Settings {
    /// Settings within the bounds that the format has.
    pub(crate) fn clamped(mut self) -> Self {
        self.frame = self.frame.clamp(16 << 10, (16 << 20) - 1);
        self.message = self.message.max(self.frame);
        self.window = self.window.max(16 << 10);
        self.connection_window = self.connection_window.max(self.window);
        self.conversations = self.conversations.clamp(1, super::MAX_CONVERSATIONS);
        self.scripts = self.scripts.max(2);
        self.channels = self.channels.clamp(1, u16::MAX as u32 - 1);
        self
    }

    /// What is told to the peer.
    pub(super) fn pairs(&self) -> [(u16, u32); 8] {
        [
            (FRAME, self.frame),
            (MESSAGE, self.message),
            (WINDOW, self.window),
            (CONNECTION_WINDOW, self.connection_window),
            (CONVERSATIONS, self.conversations),
            (SCRIPTS, self.scripts),
            (CHANNELS, self.channels),
            (OBJECTS, self.objects),
        ]
    }

    /// Takes over one pair that the peer told.
    pub(super) fn set(&mut self, key: u16, value: u32) {
        match key {
            FRAME => self.frame = value,
            MESSAGE => self.message = value,
            WINDOW => self.window = value,
            CONNECTION_WINDOW => self.connection_window = value,
            CONVERSATIONS => self.conversations = value,
            SCRIPTS => self.scripts = value,
            CHANNELS => self.channels = value,
            OBJECTS => self.objects = value,
            _ => {}
        }
    }
}
