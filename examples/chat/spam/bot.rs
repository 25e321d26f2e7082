//! One bot.

use std::sync::Arc;

use hbi::Peer;

use super::{Plan, figures::Figures};
use crate::{
    flat,
    protocol::{ChatStub, Chatter, MsgsInRoom, TransfersStub, Upload, readable},
};

/// After how many lines a bot goes to another room.
const ROOM: u64 = 10;

/// After how many lines a bot takes another nick.
const NICK: u64 = 25;

/// One bot.
pub(super) struct Bot {
    number: u64,
    plan: Plan,
    chat: ChatStub,
    transfers: TransfersStub,
    /// Whether the server may have the flat calls only.
    flat: bool,
    figures: Arc<Figures>,
    random: Random,
}

impl Bot {
    pub(super) fn new(
        number: u64,
        plan: Plan,
        peer: &Peer,
        flat: bool,
        figures: Arc<Figures>,
    ) -> Self {
        Self {
            number,
            plan,
            chat: ChatStub::new(peer),
            transfers: TransfersStub::new(peer),
            flat,
            figures,
            random: Random::new(number),
        }
    }

    /// Talks and sends files, mixed, until all is done or the connection is gone.
    pub(super) async fn run(mut self) {
        let Plan { msgs, files, .. } = self.plan;
        let (mut said, mut sent) = (0, 0);
        while said < msgs || sent < files {
            let done = if said * files < sent * msgs || sent == files {
                said += 1;
                self.talk(said).await
            } else {
                sent += 1;
                self.exchange(sent).await
            };
            if let Err(error) = done {
                let gone = error
                    .downcast_ref()
                    .is_some_and(hbi::Error::is_disconnected);
                self.figures
                    .failed(format!("bot {}: {error:#}", self.number));
                if gone {
                    return;
                }
            }
        }
    }

    async fn talk(&mut self, line: u64) -> anyhow::Result<()> {
        let Self { number, chat, .. } = self;
        if line % NICK == 1 {
            let nick = format!("bot {number}.{}", line / NICK);
            self.figures.timed(chat.set_nick(nick)).await?;
        }
        if line % ROOM == 1 {
            let room = format!("Spam{}", self.random.below(self.plan.rooms));
            self.figures.timed(self.chat.goto_room(room)).await?;
        }
        let text = format!("bot {} says line {line}", self.number);
        // below the numbers of what a person says over the same connection
        let said = self.chat.say(-(line as i64), text.into_bytes());
        self.figures.timed(said).await?;
        self.figures.said();
        Ok(())
    }

    /// Sends a file up and gets it back.
    async fn exchange(&mut self, file: u64) -> anyhow::Result<()> {
        let (from, to) = self.plan.file_kb;
        let size = (from + self.random.below(to - from + 1)) << 10;
        let content = self.random.bytes(size as usize);
        let crc = crc32fast::hash(&content);
        let room = format!("Spam{}", self.random.below(self.plan.rooms));
        let name = format!("bot{}-{file}.bin", self.number);
        if self.flat {
            let data = content.clone().into();
            flat::send(&self.chat, &room, &name, (size, crc), data).await?;
            self.figures.sent(size);
            let (len, sum, back) =
                flat::get(&self.chat, &room, &name, async |_| Ok(Vec::new())).await?;
            self.figures.got(len);
            let checks = sum == crc && back == content;
            anyhow::ensure!(checks, "the file came back as another one");
            self.figures.checked();
            return Ok(());
        }
        let upload = Upload {
            room: room.clone(),
            name: name.clone(),
            size,
            crc,
        };
        let from = self
            .figures
            .timed(self.transfers.begin(&upload))
            .await
            .map_err(readable)?;
        let rest = upload.rest(from)?;
        self.transfers
            .upload(upload, from, content.slice(from as usize..))
            .await
            .map_err(readable)?;
        self.figures.sent(rest);

        let (info, data) = self
            .transfers
            .download(room, name, 0)
            .await
            .map_err(readable)?;
        let back = data.to_bytes(size as usize).await?;
        self.figures.got(back.len() as u64);
        let checks = info.crc == crc && info.size == size && back == content;
        anyhow::ensure!(checks, "the file came back as another one");
        self.figures.checked();
        Ok(())
    }
}

/// Hears what the server pushes, and counts it.
pub(super) struct Ear(pub(super) Arc<Figures>);

impl Chatter for Ear {
    async fn nick_changed(&self, _nick: String) {}

    async fn in_room(&self, _room: String) {}

    async fn show_notice(&self, text: String) {
        if text.contains("too slow") {
            self.0.missed();
        }
    }

    async fn room_msgs(&self, said: MsgsInRoom) {
        self.0.heard(said.msgs.len() as u64);
    }

    async fn chatter_joined(&self, _nick: String, _room: String) {}

    async fn chatter_left(&self, _nick: String, _room: String) {}

    async fn said(&self, _id: i64) {}
}

/// Numbers at random, the same in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below another.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn bytes(&mut self, len: usize) -> bytes::Bytes {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}
