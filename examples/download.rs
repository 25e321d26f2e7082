//! A file download in a conversation: refused with a reason, or size and message, the data, and its
//! checksum at last. Nothing of it is ever in memory as a whole.

use std::path::PathBuf;

use clap::Parser;
use hbi::prelude::*;
use hbi_examples::{Checked, bar};
use tokio::fs::File;

/// Serves a folder to itself, and downloads a file of it.
#[derive(Parser)]
struct Options {
    /// The folder with the files of one room.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// The file to download.
    #[arg(default_value = "Cargo.toml")]
    name: String,
    /// Where to put it [default: a temporary file].
    #[arg(long)]
    to: Option<PathBuf>,
}

#[hbi::service(name = "rooms")]
trait Rooms {
    /// Answers `(size, message)`, then the data, then its CRC-32; a negative size refuses.
    #[hbi(converse)]
    async fn send_file(&self, co: HoCo, room: String, name: String) -> hbi::Result<()>;
}

struct Served {
    folder: PathBuf,
}

impl Rooms for Served {
    async fn send_file(&self, co: HoCo, _room: String, name: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        let plain = PathBuf::from(&name)
            .file_name()
            .is_some_and(|plain| *plain == *name);
        let opened = if plain {
            File::open(self.folder.join(&name)).await.ok()
        } else {
            None
        };
        let metadata = match &opened {
            Some(file) => file
                .metadata()
                .await
                .ok()
                .filter(|metadata| metadata.is_file()),
            None => None,
        };
        let (Some(file), Some(metadata)) = (opened, metadata) else {
            co.send_obj(&(-1_i64, "no such file")).await?;
            return co.close().await;
        };
        let modified = metadata.modified().map_or(0, |time| {
            time.duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs())
        });
        let message = format!("last modified {modified} s after 1970");
        co.send_obj(&(metadata.len() as i64, message)).await?;
        let file = Checked::new(file);
        let sum = file.sum();
        co.send_data(hbi::Data::reader(file)).await?;
        co.send_obj(&sum.crc()).await?;
        co.close().await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = options.folder.clone();
    let server = hbi::serve("tcp://127.0.0.1:0", move |_peer| {
        let served = Served {
            folder: folder.clone(),
        };
        async move { Ok(HostingEnv::new().service(RoomsHost::new(served))) }
    })
    .await?;
    let peer = hbi::connect(server.address().to_string(), HostingEnv::new()).await?;

    let mut co = RoomsStub::new(&peer)
        .send_file("Lobby", &options.name)
        .await?;
    let (size, message): (i64, String) = co.recv_obj().await?;
    let Ok(size) = u64::try_from(size) else {
        anyhow::bail!("the server refused: {message}");
    };
    println!("{}: {size} bytes, {message}", options.name);
    let temporary = tempfile::NamedTempFile::new()?;
    let target = options.to.unwrap_or_else(|| temporary.path().to_owned());
    let mut file = Checked::new(File::create(&target).await?).with_bar(bar("download", size));
    // no more than was announced, whatever comes
    co.recv_data_exact(&mut file, size).await?;
    let theirs: u32 = co.recv_obj().await?;
    anyhow::ensure!(file.sum().crc() == theirs, "the checksum does not match");
    println!("all {size} bytes are here, CRC-32 {theirs:08x}");
    Ok(())
}
