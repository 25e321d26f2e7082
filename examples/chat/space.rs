//! How much of the disk the files take: of each room and in all, those on their way included.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use crate::protocol::Refused;

/// The most bytes of all files of a room, and of all rooms.
const ROOM: u64 = 1 << 30;
const ALL: u64 = 16 << 30;

/// The space that is taken, by the directory of each room.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    all: u64,
    rooms: HashMap<PathBuf, u64>,
}

impl Space {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Whether so many bytes more would fit into a room.
    pub(crate) fn check(&self, room: &Path, bytes: u64) -> Result<(), Refused> {
        let used = self.used();
        let of_room = used.rooms.get(room).copied().unwrap_or_default();
        if of_room.saturating_add(bytes) > ROOM || used.all.saturating_add(bytes) > ALL {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Counts bytes that are there, or are about to be written.
    pub(crate) fn take(&self, room: &Path, bytes: u64) {
        let mut used = self.used();
        used.all += bytes;
        *used.rooms.entry(room.to_owned()).or_default() += bytes;
    }

    /// Counts bytes no more.
    pub(crate) fn give(&self, room: &Path, bytes: u64) {
        let mut used = self.used();
        used.all = used.all.saturating_sub(bytes);
        if let Some(of_room) = used.rooms.get_mut(room) {
            *of_room = of_room.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_and_the_whole_have_an_end() {
        let space = Space::default();
        let room = |n: u64| PathBuf::from(format!("room {n}"));
        for n in 0..ALL / ROOM {
            space.check(&room(n), ROOM).expect("there is space");
            space.take(&room(n), ROOM);
            assert!(space.check(&room(n), 1).is_err());
        }
        assert!(space.check(&room(100), 1).is_err(), "no space in all");
        space.give(&room(3), 10);
        space.check(&room(100), 10).expect("there is space again");
        assert!(space.check(&room(3), 11).is_err());
        space.check(&room(3), 10).expect("there is space again");
    }
}
