//! Files that are being written: each by one transfer at a time.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

/// The files that are being written.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashSet<PathBuf>>);

/// A file that is written by nobody else, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    path: PathBuf,
}

impl Claims {
    /// Claims a file; nothing where somebody else has.
    pub(crate) fn claim(&self, path: PathBuf) -> Option<Claim<'_>> {
        let free = self.lock().insert(path.clone());
        free.then(|| Claim { claims: self, path })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl Claim<'_> {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.path);
    }
}
