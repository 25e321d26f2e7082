//! Files on their way to the server's disk, and the space that all files take there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use tokio::fs::File;

use crate::{
    claims::{Claim, Claims},
    protocol::Refused,
    space::Space,
};

/// What is on its way.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    pub(crate) space: Space,
    claims: Claims,
    /// Held while directories come and go, so that none goes between its making and its first file.
    dirs: Mutex<()>,
}

/// A file on its way, which nobody else writes. Where it cannot go on later, or nothing of it came, it
/// is removed when this is dropped: a transfer that breaks off is dropped, not told. What it does to
/// files has no await within, so that nothing is counted that is not there.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    of: &'a Partials,
    claim: Claim<'a>,
    /// The directory of its room's complete files, by which its space is counted.
    room: PathBuf,
    /// How many bytes of it are there, and counted.
    len: u64,
    /// Whether it can go on when it breaks off.
    goes_on: bool,
}

impl Partials {
    /// Claims a file of a room.
    pub(crate) fn claim(
        &self,
        path: PathBuf,
        room: PathBuf,
        goes_on: bool,
    ) -> Result<Partial<'_>, Refused> {
        let claim = self.claims.claim(path).ok_or(Refused::Busy)?;
        let len = fs::metadata(claim.path()).map_or(0, |there| there.len());
        Ok(Partial {
            of: self,
            claim,
            room,
            len,
            goes_on,
        })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.dirs.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl Partial<'_> {
    pub(crate) fn path(&self) -> &Path {
        self.claim.path()
    }

    /// Opens it, or makes it.
    pub(crate) fn open(&self) -> io::Result<File> {
        let _dirs = self.of.lock();
        if let Some(dir) = self.path().parent() {
            fs::create_dir_all(dir)?;
        }
        let mut options = fs::File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        options.open(self.path()).map(File::from_std)
    }

    /// Whether there is space for so many bytes more.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Refused> {
        self.of.space.check(&self.room, bytes)
    }

    /// Counts bytes that were written.
    pub(crate) fn grow(&mut self, bytes: u64) {
        self.len += bytes;
        self.of.space.take(&self.room, bytes);
    }

    /// Removes what is there of it.
    pub(crate) fn discard(&mut self) {
        // mostly there is nothing
        let _ = fs::remove_file(self.path());
        self.of
            .space
            .give(&self.room, std::mem::take(&mut self.len));
    }

    /// Makes it a complete file of its room, in place of one that may be there.
    pub(crate) fn complete(mut self, to: &Path) -> io::Result<()> {
        let of = self.of;
        let _dirs = of.lock();
        fs::create_dir_all(&self.room)?;
        let before = fs::metadata(to).map_or(0, |old| old.len());
        fs::rename(self.path(), to)?;
        of.space.give(&self.room, before);
        // the space that it takes is the complete file's from now on
        self.len = 0;
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.len == 0 || !self.goes_on {
            self.discard();
        }
        let _dirs = self.of.lock();
        if let Some(dir) = self.path().parent() {
            // it stays where something is in it
            let _ = fs::remove_dir(dir);
        }
    }
}
