//! What is said, kept on disk: the last lines of each room, in an embedded database.

use std::path::Path;

use anyhow::Context;
use redb::{Database, ReadableTable, TableDefinition, TableError};

use crate::protocol::Msg;

/// How many lines a room keeps.
pub(crate) const KEPT: u64 = 200;

/// Of each room the number of its next line.
const ROOMS: TableDefinition<'_, &str, u64> = TableDefinition::new("rooms");

/// Room and number of a line: who said what, and when.
const LINES: TableDefinition<'_, (&str, u64), (&str, &str, f64)> = TableDefinition::new("lines");

/// The lines of all rooms.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

/// What a room keeps.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The number of the next line.
    pub(crate) next: u64,
    /// The last lines, the oldest first.
    pub(crate) lines: Vec<Msg>,
}

impl Store {
    /// Opens the database in a directory, or makes it.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("chat.redb");
        let database = Database::create(&path)
            .with_context(|| format!("the database {} cannot be opened", path.display()))?;
        Ok(Self { database })
    }

    /// Keeps lines, all or none; answers their numbers. They are on disk when it returns.
    pub(crate) fn append<'a>(
        &self,
        lines: impl Iterator<Item = (&'a str, &'a Msg)>,
    ) -> anyhow::Result<Vec<u64>> {
        let write = self.database.begin_write()?;
        let mut numbers = Vec::new();
        {
            let mut rooms = write.open_table(ROOMS)?;
            let mut table = write.open_table(LINES)?;
            for (room, msg) in lines {
                let number = rooms.get(room)?.map_or(0, |next| next.value());
                rooms.insert(room, number + 1)?;
                table.insert((room, number), (&*msg.from, &*msg.text, msg.time))?;
                if let Some(old) = number.checked_sub(KEPT) {
                    table.remove((room, old))?;
                }
                numbers.push(number);
            }
        }
        write.commit()?;
        Ok(numbers)
    }

    /// What a room keeps.
    pub(crate) fn room(&self, room: &str) -> anyhow::Result<Kept> {
        let read = self.database.begin_read()?;
        let rooms = match read.open_table(ROOMS) {
            Ok(rooms) => rooms,
            // nobody has said anything yet
            Err(TableError::TableDoesNotExist(_)) => return Ok(Kept::default()),
            Err(error) => return Err(error.into()),
        };
        let next = rooms.get(room)?.map_or(0, |next| next.value());
        let first = next.saturating_sub(KEPT);
        let mut lines = Vec::new();
        for entry in read.open_table(LINES)?.range((room, first)..(room, next))? {
            let (_, line) = entry?;
            let (from, text, time) = line.value();
            lines.push(Msg {
                from: from.to_owned(),
                text: text.to_owned(),
                time,
            });
        }
        Ok(Kept { next, lines })
    }

    /// The rooms that keep something.
    pub(crate) fn rooms(&self) -> anyhow::Result<Vec<String>> {
        let read = self.database.begin_read()?;
        let rooms = match read.open_table(ROOMS) {
            Ok(rooms) => rooms,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut names = Vec::new();
        for entry in rooms.iter()? {
            names.push(entry?.0.value().to_owned());
        }
        Ok(names)
    }
}
