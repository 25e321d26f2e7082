//! The files of the rooms, as they lie on the server's disk: `rooms/ROOM/NAME` those that are
//! complete, `partial/ROOM/NAME.SIZE.CRC` those that are on their way.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use hbi::Data;
use hbi_examples::Checked;
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use crate::{
    names,
    protocol::{FILE, FileInfo, Refused, Upload},
    space::Space,
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

/// The files of all rooms.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    space: Space,
    /// What is being written.
    busy: Mutex<HashSet<PathBuf>>,
    /// Checksums, with the size and time of the files that they were reckoned of.
    sums: Mutex<HashMap<PathBuf, (u64, SystemTime, u32)>>,
    received: AtomicU64,
}

/// A file that is written by nobody else, until this is dropped.
struct Claim<'a> {
    files: &'a Files,
    path: PathBuf,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.files.busy).remove(&self.path);
    }
}

impl Files {
    /// The files in a directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            space: Space::default(),
            busy: Mutex::default(),
            sums: Mutex::default(),
            received: AtomicU64::new(0),
        }
    }

    /// Counts what lies there, without what was received in one piece and cannot go on. For when the
    /// server starts.
    pub(crate) async fn count(&self) -> Result<(), Refused> {
        for path in self.all_partials().await? {
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with(RECEIVED) {
                fs::remove_file(path).await.map_err(failed)?;
            }
        }
        for below in ["rooms", "partial"] {
            for (_, room) in listed(&self.dir.join(below)).await? {
                let of_room = self.dir.join(below).join(names::kept(&room)?);
                for (size, _) in listed(&of_room).await? {
                    self.space.take(&self.room(&room)?, size);
                }
            }
        }
        Ok(())
    }

    /// Removes uploads that broke off long ago, and gives back their space.
    pub(crate) async fn sweep(&self) -> Result<(), Refused> {
        for path in self.all_partials().await? {
            // one that goes on right now is not old
            let Ok(claim) = self.claim(path) else {
                continue;
            };
            let metadata = match fs::metadata(&claim.path).await {
                Ok(metadata) => metadata,
                // it was completed meanwhile
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let changed = metadata.modified().map_err(failed)?;
            let (Some(room), true) = (
                claim.path.parent().and_then(Path::file_name),
                changed.elapsed().unwrap_or_default() > WAITS,
            ) else {
                continue;
            };
            fs::remove_file(&claim.path).await.map_err(failed)?;
            self.space
                .give(&self.dir.join("rooms").join(room), metadata.len());
        }
        Ok(())
    }

    /// All that is on its way.
    async fn all_partials(&self) -> Result<Vec<PathBuf>, Refused> {
        let mut all = Vec::new();
        let partial = self.dir.join("partial");
        for (_, room) in listed(&partial).await? {
            let of_room = partial.join(names::kept(&room)?);
            let mut entries = fs::read_dir(of_room).await.map_err(failed)?;
            while let Some(entry) = entries.next_entry().await.map_err(failed)? {
                all.push(entry.path());
            }
        }
        Ok(all)
    }

    /// Sizes and names of a room's files, by name.
    pub(crate) async fn list(&self, room: &str) -> Result<Vec<(u64, String)>, Refused> {
        let mut files = listed(&self.room(room)?).await?;
        files.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(files)
    }

    /// Whether a file would be taken.
    pub(crate) async fn check(&self, room: &str, name: &str, size: u64) -> Result<(), Refused> {
        names::kept(name)?;
        if size > FILE {
            return Err(Refused::TooLarge(FILE));
        }
        self.check_room(room).await?;
        let complete = listed(&self.room(room)?).await?;
        let partial = listed(&self.partials(room)?).await?;
        if complete.len() + partial.len() >= FILES {
            return Err(Refused::Full);
        }
        self.space.check(&self.room(room)?, size)
    }

    /// Whether a room may have files: it has some, or few enough others have.
    async fn check_room(&self, room: &str) -> Result<(), Refused> {
        for (below, of_room) in [
            ("rooms", self.room(room)?),
            ("partial", self.partials(room)?),
        ] {
            let is_new = !fs::try_exists(of_room).await.map_err(failed)?;
            if is_new && listed(&self.dir.join(below)).await?.len() >= ROOMS {
                return Err(Refused::Full);
            }
        }
        Ok(())
    }

    /// Whether a file is taken, and how much of it is there already.
    pub(crate) async fn begin(&self, file: &Upload) -> Result<u64, Refused> {
        self.check(&file.room, &file.name, file.size).await?;
        match fs::metadata(self.partial(file)?).await {
            Ok(metadata) => Ok(metadata.len().min(file.size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes a file from a byte on. What has arrived stays when the transfer breaks off, so that it
    /// can go on there.
    pub(crate) async fn upload(&self, file: &Upload, from: u64, data: Data) -> Result<(), Refused> {
        let claim = self.claim(self.partial(file)?)?;
        let begun = self.begin(file).await?;
        if from != 0 && from != begun {
            return Err(Refused::Position(begun));
        }
        let room = self.room(&file.room)?;
        let (target, crc) = open_at(&claim.path, from).await?;
        self.space.give(&room, begun - from);
        let mut target = Checked::rest(target, crc, from);
        let sum = target.sum();
        let taken = self.take(&room, data, &mut target, file.size - from).await;
        target.flush().await.map_err(failed)?;
        match taken {
            Ok(()) if sum.len() == file.size && sum.crc() == file.crc => {
                self.complete(&claim.path, &file.room, &file.name, sum.crc())
                    .await
            }
            Ok(()) | Err(Refused::TooLarge(_)) => {
                fs::remove_file(&claim.path).await.map_err(failed)?;
                self.space.give(&room, sum.len());
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
        self.check(room, name, 0).await?;
        let space = self.room(room)?;
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let path = self.partials(room)?.join(format!("{RECEIVED}{number}"));
        let claim = self.claim(path)?;
        let (target, _) = open_at(&claim.path, 0).await?;
        let mut target = Checked::new(target);
        let sum = target.sum();
        let taken = self.take(&space, data, &mut target, FILE).await;
        target.flush().await.map_err(failed)?;
        let kept = match taken {
            Ok(()) => self.complete(&claim.path, room, name, sum.crc()).await,
            Err(broken) => Err(broken),
        };
        if kept.is_err() {
            // the reason is told already
            let _ = fs::remove_file(&claim.path).await;
            self.space.give(&space, sum.len());
        }
        kept.map(|()| (sum.crc(), sum.len()))
    }

    /// A file from a byte on, and what it is as a whole.
    pub(crate) async fn open(
        &self,
        room: &str,
        name: &str,
        from: u64,
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
                let crc = checksum(&mut file, size).await?;
                self.remember(path, (size, changed, crc));
                crc
            }
        };
        file.seek(io::SeekFrom::Start(from)).await.map_err(failed)?;
        let rest = size - from;
        let data = Data::reader(file.take(rest)).with_len(rest);
        let since = changed.duration_since(SystemTime::UNIX_EPOCH);
        let info = FileInfo {
            size,
            crc,
            changed: since.unwrap_or_default().as_secs(),
        };
        Ok((info, data))
    }

    /// Makes a file that is on its way a complete one. It is on disk when this returns.
    async fn complete(&self, from: &Path, room: &str, name: &str, crc: u32) -> Result<(), Refused> {
        let room = self.room(room)?;
        fs::create_dir_all(&room).await.map_err(failed)?;
        let to = room.join(names::kept(name)?);
        let file = File::open(from).await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        let before = fs::metadata(&to).await.map_or(0, |old| old.len());
        fs::rename(from, &to).await.map_err(failed)?;
        self.space.give(&room, before);
        let dir = File::open(&room).await.map_err(failed)?;
        dir.sync_all().await.map_err(failed)?;
        let changed = metadata.modified().map_err(failed)?;
        self.remember(to, (metadata.len(), changed, crc));
        Ok(())
    }

    /// Writes data to its end, but no more than so many bytes, and no more than there is space for.
    async fn take(
        &self,
        room: &Path,
        mut data: Data,
        target: &mut Checked<File>,
        most: u64,
    ) -> Result<(), Refused> {
        let broken =
            |error: hbi::Error| Refused::Failed(format!("the transfer broke off: {error}"));
        let mut came = 0;
        while let Some(piece) = data.try_next().await.map_err(broken)? {
            let length = piece.len() as u64;
            came += length;
            if came > most {
                return Err(Refused::TooLarge(most));
            }
            self.space.check(room, length)?;
            target.write_all(&piece).await.map_err(failed)?;
            self.space.take(room, length);
        }
        Ok(())
    }

    fn remember(&self, path: PathBuf, sum: (u64, SystemTime, u32)) {
        let mut sums = lock(&self.sums);
        if sums.len() >= SUMS {
            sums.clear();
        }
        sums.insert(path, sum);
    }

    fn claim(&self, path: PathBuf) -> Result<Claim<'_>, Refused> {
        if !lock(&self.busy).insert(path.clone()) {
            return Err(Refused::Busy);
        }
        Ok(Claim { files: self, path })
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

/// Opens a file to write from a byte on, and reckons what is before.
async fn open_at(path: &Path, from: u64) -> Result<(File, u32), Refused> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).await.map_err(failed)?;
    }
    let mut options = File::options();
    let options = options.read(true).write(true).create(true);
    let mut file = options.open(path).await.map_err(failed)?;
    file.set_len(from).await.map_err(failed)?;
    let crc = checksum(&mut file, from).await?;
    Ok((file, crc))
}

/// The CRC-32 of a file's first bytes; leaves the file behind them.
async fn checksum(file: &mut File, len: u64) -> Result<u32, Refused> {
    let mut checked = Checked::new(file.take(len));
    let sum = checked.sum();
    let copied = tokio::io::copy(&mut checked, &mut tokio::io::sink()).await;
    copied.map_err(failed)?;
    Ok(sum.crc())
}

/// Sizes and names of what lies in a directory, which need not exist.
async fn listed(dir: &Path) -> Result<Vec<(u64, String)>, Refused> {
    let mut entries = match fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let name = entry.file_name().into_string().ok();
        // what was renamed meanwhile is no more
        let (Some(name), Ok(metadata)) = (name, entry.metadata().await) else {
            continue;
        };
        if let Some(name) = names::original(&name) {
            files.push((metadata.len(), name));
        }
    }
    Ok(files)
}

fn failed(error: io::Error) -> Refused {
    Refused::Failed(format!("the server's disk: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}
