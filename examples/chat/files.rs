//! The files of the rooms, as they lie on the server's disk: `rooms/ROOM/NAME` those that are
//! complete, `partial/ROOM/NAME.SIZE.CRC` those that are on their way.

use std::{
    collections::HashMap,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use hbi::Data;
use hbi_examples::{Checked, checksum};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    names,
    partial::{Partial, Partials},
    protocol::{FILE, FileInfo, Refused, Upload},
};

/// How long an upload that broke off may wait to go on.
const WAITS: Duration = Duration::from_secs(24 * 60 * 60);

/// The most rooms that have files.
const ROOMS: usize = 1000;

/// The most files of a room.
const FILES: usize = 1000;

/// How the names of files begin that are received in one piece; no kept name begins so.
const RECEIVED: &str = ".received.";

/// Of how many files the checksums are remembered.
const SUMS: usize = 10_000;

/// How many files may be on their way at once, up and down: each keeps one open.
const TRANSFERS: usize = 256;

/// The files of all rooms.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    partials: Partials,
    /// Checksums, with the size and time of the files that they were reckoned of.
    sums: Mutex<HashMap<PathBuf, (u64, SystemTime, u32)>>,
    received: AtomicU64,
    turns: Arc<Semaphore>,
}

/// A place among the transfers of a member, and one among those of all.
pub(crate) type Turn = [OwnedSemaphorePermit; 2];

impl Files {
    /// The files in a directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            partials: Partials::default(),
            sums: Mutex::default(),
            received: AtomicU64::new(0),
            turns: Arc::new(Semaphore::new(TRANSFERS)),
        }
    }

    /// Counts what lies there, without what was received in one piece and cannot go on. For when the
    /// server starts.
    pub(crate) async fn count(&self) -> Result<(), Refused> {
        for path in self.all_partials().await? {
            let name = path.file_name().unwrap_or_default();
            let goes_on = !name.to_string_lossy().starts_with(RECEIVED);
            // dropped at once, which removes what is of no use
            self.claim(path, goes_on)?;
        }
        for below in ["rooms", "partial"] {
            for of_room in directories(&self.dir.join(below)).await? {
                // it stays where something is in it
                let _ = fs::remove_dir(&of_room).await;
                let room = self.complete_beside(&of_room);
                for (size, _) in listed(&of_room).await? {
                    self.partials.space.take(&room, size);
                }
            }
        }
        Ok(())
    }

    /// Removes uploads that broke off long ago, and gives back their space.
    pub(crate) async fn sweep(&self) -> Result<(), Refused> {
        for path in self.all_partials().await? {
            // one that goes on right now is not old
            let Ok(mut partial) = self.claim(path, true) else {
                continue;
            };
            let metadata = match fs::metadata(partial.path()).await {
                Ok(metadata) => metadata,
                // it was completed meanwhile
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let changed = metadata.modified().map_err(failed)?;
            if changed.elapsed().unwrap_or_default() > WAITS {
                partial.discard();
            }
        }
        Ok(())
    }

    /// All that is on its way.
    async fn all_partials(&self) -> Result<Vec<PathBuf>, Refused> {
        let mut all = Vec::new();
        for of_room in directories(&self.dir.join("partial")).await? {
            for (path, there) in entries(&of_room).await? {
                if there.is_file() {
                    all.push(path);
                }
            }
        }
        Ok(all)
    }

    /// A place among all transfers, for one that has its place among those of its member.
    pub(crate) fn turn(&self, of_member: OwnedSemaphorePermit) -> Result<Turn, Refused> {
        match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(of_all) => Ok([of_member, of_all]),
            Err(_) => Err(Refused::Crowded(TRANSFERS)),
        }
    }

    /// Sizes and names of a room's files, by name.
    pub(crate) async fn list(&self, room: &str) -> Result<Vec<(u64, String)>, Refused> {
        let mut files = listed(&self.room(room)?).await?;
        files.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(files)
    }

    /// Whether a file would be taken, of which so many bytes are on the disk already.
    pub(crate) async fn check(
        &self,
        room: &str,
        name: &str,
        size: u64,
        begun: u64,
    ) -> Result<(), Refused> {
        names::kept(name)?;
        if size > FILE {
            return Err(Refused::TooLarge(FILE));
        }
        self.check_room(room).await?;
        let complete = listed(&self.room(room)?).await?;
        // one of its name makes room for it
        let complete = complete.iter().filter(|(_, other)| other != name).count();
        let partial = listed(&self.partials(room)?).await?;
        let partial = partial.len().saturating_sub(usize::from(begun > 0));
        if complete + partial >= FILES {
            return Err(Refused::Full);
        }
        let to_come = size.saturating_sub(begun);
        self.partials.space.check(&self.room(room)?, to_come)
    }

    /// Whether a room may have files: it has some, or few enough others have.
    async fn check_room(&self, room: &str) -> Result<(), Refused> {
        for (below, of_room) in [
            ("rooms", self.room(room)?),
            ("partial", self.partials(room)?),
        ] {
            let is_new = !fs::try_exists(of_room).await.map_err(failed)?;
            if is_new && directories(&self.dir.join(below)).await?.len() >= ROOMS {
                return Err(Refused::Full);
            }
        }
        Ok(())
    }

    /// Whether a file is taken, and how much of it is there already.
    pub(crate) async fn begin(&self, file: &Upload) -> Result<u64, Refused> {
        let begun = match fs::metadata(self.partial(file)?).await {
            // of one that is too long nothing is of use
            Ok(there) if there.len() > file.size => 0,
            Ok(there) => there.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed(error)),
        };
        self.check(&file.room, &file.name, file.size, begun).await?;
        Ok(begun)
    }

    /// Takes a file from a byte on. What has arrived stays when the transfer breaks off, so that it
    /// can go on there.
    pub(crate) async fn upload(&self, file: &Upload, from: u64, data: Data) -> Result<(), Refused> {
        let mut partial = self.claim(self.partial(file)?, true)?;
        let begun = self.begin(file).await?;
        match from {
            0 => partial.discard(),
            from if from == begun => {}
            _ => return Err(Refused::Position(begun)),
        }
        let mut target = partial.open().map_err(failed)?;
        let crc = checksum(&mut target, from).await.map_err(failed)?;
        let mut target = Checked::rest(target, crc, from);
        let sum = target.sum();
        let taken = take(&mut partial, data, &mut target, file.size - from).await;
        target.flush().await.map_err(failed)?;
        match taken {
            Ok(()) if sum.len() == file.size && sum.crc() == file.crc => {
                let Upload { room, name, .. } = file;
                self.complete(partial, room, name, sum.crc()).await
            }
            Ok(()) | Err(Refused::TooLarge(_)) => {
                partial.discard();
                Err(Refused::Checksum)
            }
            Err(broken) => Err(broken),
        }
    }

    /// Takes a file of which nothing is known before; answers its CRC-32 and size.
    pub(crate) async fn receive(
        &self,
        room: &str,
        name: &str,
        data: Data,
    ) -> Result<(u32, u64), Refused> {
        self.check(room, name, 0, 0).await?;
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let path = self.partials(room)?.join(format!("{RECEIVED}{number}"));
        let mut partial = self.claim(path, false)?;
        let mut target = Checked::new(partial.open().map_err(failed)?);
        let sum = target.sum();
        take(&mut partial, data, &mut target, FILE).await?;
        target.flush().await.map_err(failed)?;
        self.complete(partial, room, name, sum.crc()).await?;
        Ok((sum.crc(), sum.len()))
    }

    /// A file from a byte on, and what it is as a whole.
    pub(crate) async fn open(
        &self,
        room: &str,
        name: &str,
        from: u64,
        turn: Turn,
    ) -> Result<(FileInfo, Data), Refused> {
        let path = self.room(room)?.join(names::kept(name)?);
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Refused::Missing(name.to_owned()),
            _ => failed(error),
        };
        let mut file = File::open(&path).await.map_err(missing)?;
        let metadata = file.metadata().await.map_err(failed)?;
        let size = metadata.len();
        if from > size {
            return Err(Refused::Position(0));
        }
        let changed = metadata.modified().map_err(failed)?;
        let known = lock(&self.sums).get(&path).copied();
        let crc = match known {
            Some((len, time, crc)) if (len, time) == (size, changed) => crc,
            _ => {
                let crc = checksum(&mut file, size).await.map_err(failed)?;
                self.remember(path, (size, changed, crc));
                crc
            }
        };
        file.seek(io::SeekFrom::Start(from)).await.map_err(failed)?;
        let rest = size - from;
        let data = Data::reader(file.take(rest)).inspect(move |_| {
            // until all is sent, or nobody wants it any more
            let _held = &turn;
        });
        let data = Data::stream(data).with_len(rest);
        let since = changed.duration_since(SystemTime::UNIX_EPOCH);
        let info = FileInfo {
            size,
            crc,
            changed: since.unwrap_or_default().as_secs(),
        };
        Ok((info, data))
    }

    /// Makes a file that is on its way a complete one. It is on disk when this returns.
    async fn complete(
        &self,
        partial: Partial<'_>,
        room: &str,
        name: &str,
        crc: u32,
    ) -> Result<(), Refused> {
        let room = self.room(room)?;
        let to = room.join(names::kept(name)?);
        let file = File::open(partial.path()).await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        partial.complete(&to).map_err(failed)?;
        let dir = File::open(&room).await.map_err(failed)?;
        dir.sync_all().await.map_err(failed)?;
        let changed = metadata.modified().map_err(failed)?;
        self.remember(to, (metadata.len(), changed, crc));
        Ok(())
    }

    fn remember(&self, path: PathBuf, sum: (u64, SystemTime, u32)) {
        let mut sums = lock(&self.sums);
        if sums.len() >= SUMS {
            sums.clear();
        }
        sums.insert(path, sum);
    }

    fn claim(&self, path: PathBuf, goes_on: bool) -> Result<Partial<'_>, Refused> {
        let of_room = path.parent().unwrap_or(&self.dir);
        let room = self.complete_beside(of_room);
        self.partials.claim(path, room, goes_on)
    }

    /// Where the complete files of a room lie, by the directory of either kind.
    fn complete_beside(&self, of_room: &Path) -> PathBuf {
        let room = of_room.file_name().unwrap_or_default();
        self.dir.join("rooms").join(room)
    }

    fn room(&self, room: &str) -> Result<PathBuf, Refused> {
        Ok(self.dir.join("rooms").join(names::kept(room)?))
    }

    fn partials(&self, room: &str) -> Result<PathBuf, Refused> {
        Ok(self.dir.join("partial").join(names::kept(room)?))
    }

    fn partial(&self, file: &Upload) -> Result<PathBuf, Refused> {
        let Upload {
            name, size, crc, ..
        } = file;
        let name = format!("{}.{size}.{crc:08x}", names::kept(name)?);
        Ok(self.partials(&file.room)?.join(name))
    }
}

/// Writes data to its end, but no more than so many bytes, and no more than there is space for.
async fn take(
    partial: &mut Partial<'_>,
    mut data: Data,
    target: &mut Checked<File>,
    most: u64,
) -> Result<(), Refused> {
    let broken = |error: hbi::Error| Refused::Failed(format!("the transfer broke off: {error}"));
    let mut came = 0;
    while let Some(piece) = data.try_next().await.map_err(broken)? {
        let length = piece.len() as u64;
        came += length;
        if came > most {
            return Err(Refused::TooLarge(most));
        }
        partial.check(length)?;
        target.write_all(&piece).await.map_err(failed)?;
        partial.grow(length);
    }
    Ok(())
}

/// Sizes and names of the files in a directory, which need not exist.
async fn listed(dir: &Path) -> Result<Vec<(u64, String)>, Refused> {
    let files = entries(dir).await?.into_iter().filter_map(|(path, there)| {
        let name = names::original(path.file_name()?.to_str()?)?;
        there.is_file().then_some((there.len(), name))
    });
    Ok(files.collect())
}

/// The directories in a directory, which need not exist.
async fn directories(dir: &Path) -> Result<Vec<PathBuf>, Refused> {
    let entries = entries(dir).await?.into_iter();
    let directories = entries.filter(|(_, there)| there.is_dir());
    Ok(directories.map(|(path, _)| path).collect())
}

/// What lies in a directory, which need not exist.
async fn entries(dir: &Path) -> Result<Vec<(PathBuf, Metadata)>, Refused> {
    let mut entries = match fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut all = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        // what was renamed meanwhile is no more
        if let Ok(metadata) = entry.metadata().await {
            all.push((entry.path(), metadata));
        }
    }
    Ok(all)
}

fn failed(error: io::Error) -> Refused {
    Refused::Failed(format!("the server's disk: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}
