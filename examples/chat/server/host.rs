//! The server's side of one connection: the services, over the shared state.

use std::sync::Arc;

use hbi::{Data, prelude::*};
use tokio::sync::Semaphore;

use super::hub::Hub;
use crate::{
    files::Turn,
    names,
    protocol::{Chat, FileInfo, LINE, Refusal, Refused, Rooms, Transfers, Upload},
};

/// The smallest file that the existing clients may send: what is smaller they show as refused.
const SMALLEST: u64 = 1024;

/// How many files of one member may be on their way at once; others wait for their turn.
const TRANSFERS: usize = 8;

/// The server's side of one connection.
#[derive(Debug)]
pub(super) struct Host {
    hub: Arc<Hub>,
    id: u64,
    turns: Arc<Semaphore>,
}

impl Host {
    pub(super) fn new(hub: Arc<Hub>, id: u64) -> Self {
        let turns = Arc::new(Semaphore::new(TRANSFERS));
        Self { hub, id, turns }
    }

    /// Waits until the member may send or get one more file.
    async fn turn(&self) -> Result<Turn, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        self.hub.files.turn(turn.expect("it is never closed"))
    }

    /// A file of a room from a byte on, once it is its turn.
    async fn open(&self, room: &str, name: &str, from: u64) -> Result<(FileInfo, Data), Refused> {
        let turn = self.turn().await?;
        let room = names::room(room);
        self.hub.files.open(&room, name, from, turn).await
    }

    /// Tells a room of a file that came there.
    async fn announce(&self, room: &str, name: &str, crc: u32, size: u64) {
        let (name, kib) = (names::shown_line(name), size.div_ceil(1024));
        let text = format!("\n @*@ I just uploaded a file {crc:08x} {kib} KB [{name}]\n");
        if let Err(error) = self.hub.say(self.id, Some(room), None, text).await {
            self.hub.notice(self.id, format!("\n@@ {error}\n"));
        }
    }
}

impl Chat for Host {
    async fn set_nick(&self, nick: String) -> String {
        self.hub.rename(self.id, &nick)
    }

    async fn goto_room(&self, room: String) {
        self.hub.goto(self.id, &room);
    }

    async fn say(&self, id: i64, text: Data) -> hbi::Result<()> {
        let text = text.to_bytes(LINE).await?;
        let text = String::from_utf8(text.to_vec())
            .map_err(|_| hbi::Error::refusal("what is said must be UTF-8"))?
            // which the text wire cannot carry
            .replace('\0', "\u{fffd}");
        let said = self.hub.say(self.id, None, Some(id), text).await;
        said.map_err(hbi::Error::refusal)
    }

    async fn upload_req(&self, room: String, name: String, size: u64) -> Option<String> {
        if size < SMALLEST {
            return Some("file too small!".to_owned());
        }
        let room = names::room(&room);
        let checked = self.hub.files.check(&room, &name, size, 0).await;
        checked.err().map(|refused| refused.to_string())
    }

    async fn recv_file(&self, room: String, name: String, data: Data) -> hbi::Result<u32> {
        let room = names::room(&room);
        let received = async {
            let _turn = self.turn().await?;
            self.hub.files.receive(&room, &name, data).await
        };
        let refuse = |refused: Refused| hbi::Error::refusal(refused.to_string());
        let (crc, size) = received.await.map_err(refuse)?;
        self.announce(&room, &name, crc, size).await;
        Ok(crc)
    }

    async fn list_files(&self, room: String) -> Vec<(u64, String)> {
        match self.hub.files.list(&names::room(&room)).await {
            Ok(files) => files,
            Err(refused) => {
                self.hub.notice(self.id, format!("\n@@ {refused}\n"));
                Vec::new()
            }
        }
    }

    async fn send_file(&self, co: HoCo, room: String, name: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        match self.open(&room, &name, 0).await {
            Ok((info, data)) => {
                let message = format!("last modified: {}", date(info.changed));
                co.send_obj(&(info.size, message)).await?;
                co.send_data(data).await?;
                co.send_obj(&info.crc).await?;
            }
            Err(Refused::Missing(_)) => co.send_obj(&(-1, "no such file")).await?,
            Err(refused) => co.send_obj(&(-1, refused.to_string())).await?,
        }
        co.close().await
    }
}

impl Rooms for Host {
    async fn members(&self, room: String) -> Vec<String> {
        self.hub.members(&names::room(&room))
    }

    async fn open(&self) -> Vec<(String, u64)> {
        self.hub.open_rooms()
    }
}

impl Transfers for Host {
    async fn begin(&self, file: Upload) -> Result<u64, Refusal> {
        Ok(self.hub.files.begin(&accepted(file)).await?)
    }

    async fn upload(&self, file: Upload, from: u64, data: Data) -> Result<(), Refusal> {
        let file = accepted(file);
        let turn = self.turn().await?;
        self.hub.files.upload(&file, from, data).await?;
        drop(turn);
        let Upload {
            room,
            name,
            size,
            crc,
        } = &file;
        self.announce(room, name, *crc, *size).await;
        Ok(())
    }

    async fn download(
        &self,
        room: String,
        name: String,
        from: u64,
    ) -> Result<(FileInfo, Data), Refusal> {
        Ok(self.open(&room, &name, from).await?)
    }
}

/// A file with the room's name as it is accepted.
fn accepted(file: Upload) -> Upload {
    Upload {
        room: names::room(&file.room),
        ..file
    }
}

/// A time in seconds since 1970 as date and time, UTC.
fn date(seconds: u64) -> String {
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    // days of years that begin with March, so that the odd day is the last one
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(1_709_251_200), "2024-03-01 00:00:00");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00");
    }
}
