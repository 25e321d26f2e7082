//! Certificates that a server signs itself when it is first started.

use std::{
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    path::Path,
};

use crate::{Error, Kind};

/// Makes a certificate with its key, unless the file is there.
pub(super) fn ensure(file: &Path, names: &[&str]) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(
            Kind::Address,
            format!(
                "cannot make a certificate for {names:?} in {}: {error}",
                file.display()
            ),
        )
    };
    if file.try_exists().map_err(|error| failed(&error))? {
        return Ok(());
    }
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    write(file, &pem).map_err(|error| failed(&error))
}

/// Writes the file whole or not at all; one that was written meanwhile elsewhere stays.
fn write(file: &Path, pem: &str) -> io::Result<()> {
    // its keys are random: nobody else writes a file of this name, in this process or in another
    let name = RandomState::new().hash_one(());
    let partial = file.with_extension(format!("{name:016x}.partial"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&partial)
        .and_then(|mut open| {
            open.write_all(pem.as_bytes())?;
            open.sync_all()
        })
        .and_then(|()| match fs::hard_link(&partial, file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    // what is left of it stands in nobody's way
    let _ = fs::remove_file(&partial);
    written
}
