//! One chatter's connection, and what can be done over it.

use std::{
    collections::HashMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hbi::{Connection, Data, prelude::*};
use hbi_examples::{Checked, Sum, checksum};
use tempfile::TempPath;
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom},
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    command::{Command, HELP},
    event::{Event, Pushed, Transfer},
};
use crate::{
    claims::Claims,
    flat, names,
    protocol::{
        self, ChatStub, ChatterHost, FILE, LINE, LOBBY, Msg, MsgsInRoom, RoomsStub, TransfersStub,
        Upload, readable,
    },
    spam::{Figures, LOOK, Plan, swarm},
};

/// How long a server may take to tell what it should.
const SOON: Duration = Duration::from_secs(10);

/// What came is not what was sent.
const MISMATCH: &str = "the checksum does not match, get it again";

/// What servers with the flat calls only cannot say.
const NOT_TOLD: &str = "over the text wire the server does not tell who is where";

/// One chatter's connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    chat: ChatStub,
    rooms: RoomsStub,
    transfers: TransfersStub,
    /// Whether the server may have the flat calls only.
    flat: bool,
    tell: mpsc::Sender<Event>,
    files: PathBuf,
    place: watch::Receiver<(u64, String)>,
    nick: Mutex<String>,
    /// What was said and is not acknowledged yet.
    saying: Mutex<HashMap<i64, String>>,
    sayings: AtomicI64,
    ids: AtomicU64,
    /// The files that are on their way here.
    getting: Claims,
}

impl Session {
    /// Connects; what happens goes to `tell`.
    pub(super) async fn connect(
        address: &str,
        files: PathBuf,
        tell: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let (told, place) = watch::channel((0, LOBBY.to_owned()));
        let pushed = Pushed {
            tell: tell.clone(),
            place: told,
        };
        let env = HostingEnv::new()
            .service(ChatterHost::new(pushed))
            .constructor::<Msg>()
            .constructor::<MsgsInRoom>();
        let connection = protocol::chatter_options().connect(address, env).await?;
        Ok(Self {
            chat: ChatStub::new(&connection),
            rooms: RoomsStub::new(&connection),
            transfers: TransfersStub::new(&connection),
            connection,
            flat: flat::only(address),
            tell,
            files,
            place,
            nick: Mutex::default(),
            saying: Mutex::default(),
            sayings: AtomicI64::new(1),
            ids: AtomicU64::new(1),
            getting: Claims::default(),
        })
    }

    /// Waits until the connection is gone; why.
    pub(super) async fn gone(&self) -> hbi::Error {
        self.connection.wait_closed().await
    }

    /// Does what was typed, and tells what became of it.
    pub(super) async fn execute(&self, command: Command) {
        let event = match self.answer(command).await {
            Ok(answer) if answer.is_empty() => return,
            Ok(answer) => Event::Answer(answer),
            Err(error) => Event::Failed(format!("{error:#}")),
        };
        self.tell(event).await;
    }

    async fn answer(&self, command: Command) -> anyhow::Result<String> {
        match command {
            Command::Nothing => {}
            Command::Arrive => self.arrive().await?,
            Command::Say(text) => self.say(text).await?,
            Command::Room(room) => self.goto(&room).await?,
            Command::Nick(nick) => self.nick(&nick).await?,
            Command::LocalFiles => return self.local_files().await,
            Command::ServerFiles => return self.server_files().await,
            Command::Upload(name) => self.upload(&name).await?,
            Command::Download(name) => self.download(&name).await?,
            Command::Spam(how) => return self.spam(&how).await,
            Command::Help => return Ok(HELP.to_owned()),
        }
        Ok(String::new())
    }

    /// Says a line in the room.
    async fn say(&self, text: String) -> anyhow::Result<()> {
        let bytes = text.len();
        ensure!(
            bytes <= LINE,
            "{bytes} bytes are too many for a line: {LINE} at most"
        );
        let id = self.sayings.fetch_add(1, Ordering::Relaxed);
        lock(&self.saying).insert(id, text.clone());
        let said = self.chat.say(id, text.into_bytes()).await;
        match said {
            // `Said` tells so as well, whichever is first
            Ok(()) => self.tell(Event::Said(id)).await,
            Err(error) => {
                lock(&self.saying).remove(&id);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// What was said under a number, the first time that it is asked for.
    pub(super) fn said(&self, id: i64) -> Option<String> {
        lock(&self.saying).remove(&id)
    }

    /// Goes to a room, and waits until the server told which.
    async fn goto(&self, room: &str) -> anyhow::Result<()> {
        let mut place = self.place.clone();
        let before = place.borrow().0;
        self.chat.goto_room(room).await?;
        let told = timeout(SOON, place.wait_for(|place| place.0 > before));
        told.await.context("the server did not tell the room")??;
        Ok(())
    }

    /// Waits until the server told in which room one is at first.
    async fn arrive(&self) -> anyhow::Result<()> {
        let mut place = self.place.clone();
        let told = timeout(SOON, place.wait_for(|place| place.0 > 0));
        told.await.context("the server did not tell the room")??;
        Ok(())
    }

    /// Takes a nick.
    async fn nick(&self, nick: &str) -> anyhow::Result<()> {
        let nick = self.chat.set_nick(nick).await?;
        nick.clone_into(&mut lock(&self.nick));
        self.tell(Event::Nick(nick)).await;
        Ok(())
    }

    /// The nicks in the room.
    pub(super) async fn members(&self) -> anyhow::Result<Vec<String>> {
        ensure!(!self.flat, NOT_TOLD);
        let room = self.room();
        Ok(self.rooms.members(room).await?)
    }

    /// The rooms that are open.
    pub(super) async fn open_rooms(&self) -> anyhow::Result<Vec<(String, u64)>> {
        ensure!(!self.flat, NOT_TOLD);
        Ok(self.rooms.open().await?)
    }

    /// Sizes and names of the files here, without hidden ones, which may be on their way.
    pub(super) async fn local(&self) -> anyhow::Result<Vec<(u64, String)>> {
        let mut files = Vec::new();
        let Ok(mut entries) = fs::read_dir(&self.files).await else {
            return Ok(files);
        };
        while let Some(entry) = entries.next_entry().await? {
            let metadata = entry.metadata().await?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_file() && !name.starts_with('.') {
                files.push((metadata.len(), name));
            }
        }
        files.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(files)
    }

    async fn local_files(&self) -> anyhow::Result<String> {
        let files = self.local().await?;
        Ok(listing(
            &format!("files in {}", self.files.display()),
            &files,
        ))
    }

    /// Sizes and names of the room's files.
    pub(super) async fn remote(&self) -> anyhow::Result<Vec<(u64, String)>> {
        let room = self.room();
        Ok(self.chat.list_files(room).await?)
    }

    async fn server_files(&self) -> anyhow::Result<String> {
        let files = self.remote().await?;
        Ok(listing(&format!("files of #{}", self.room()), &files))
    }

    /// Sends a file up, or the rest of it.
    async fn upload(&self, name: &str) -> anyhow::Result<()> {
        ensure!(!name.is_empty(), "`> file` takes a file's name");
        let path = self.files.join(name);
        let plain = path.file_name().context("`> file` takes a file's name")?;
        let plain = plain.to_string_lossy().into_owned();
        let opened = File::open(&path).await;
        let mut file = opened.with_context(|| format!("cannot send {}", path.display()))?;
        let size = file.metadata().await?.len();
        let crc = checksum(&mut file, size).await?;
        let room = self.room();
        if self.flat {
            file.rewind().await?;
            let file = Checked::new(file.take(size));
            let id = self.started(&plain, true, size, file.sum()).await;
            let data = Data::reader(file).with_len(size);
            let sent = flat::send(&self.chat, &room, &plain, (size, crc), data).await;
            let outcome = sent.map(|()| done(&plain, "sent", size, 0, crc));
            self.ended(id, outcome).await;
            return Ok(());
        }
        let upload = Upload {
            room,
            name: plain.clone(),
            size,
            crc,
        };
        let from = self.transfers.begin(&upload).await.map_err(readable)?;
        let rest = upload.rest(from)?;
        file.seek(SeekFrom::Start(from)).await?;
        let file = Checked::rest(file.take(rest), 0, from);
        let id = self.started(&plain, true, size, file.sum()).await;
        let data = Data::reader(file).with_len(rest);
        let outcome = match self.transfers.upload(upload, from, data).await {
            Ok(()) => Ok(done(&plain, "sent", size, from, crc)),
            Err(error) => Err(readable(error)),
        };
        self.ended(id, outcome).await;
        Ok(())
    }

    /// Gets a file, or the rest of it.
    async fn download(&self, name: &str) -> anyhow::Result<()> {
        let room = self.room();
        let kept = names::kept(name)?;
        fs::create_dir_all(&self.files).await?;
        if self.flat {
            return self.download_whole(&room, name, &kept).await;
        }
        let download = async |from| {
            let answer = self.transfers.download(&room, name, from).await;
            answer.map_err(readable)
        };
        let (info, data) = download(0).await?;
        let size = info.size;
        ensure!(
            size <= FILE,
            "{size} bytes are too many: {FILE} at most are taken"
        );
        let partial = self.files.join(format!(".{kept}.{:08x}.part", info.crc));
        let claim = self.getting.claim(partial);
        let claim = claim.with_context(|| format!("{name} is on its way already"))?;
        let mut options = File::options();
        let options = options.read(true).write(true).create(true);
        let mut file = options.open(claim.path()).await?;
        let mut from = file.metadata().await?.len();
        if from > size {
            // nothing that came like this
            file.set_len(0).await?;
            from = 0;
        }
        let data = match from {
            0 => data,
            from => {
                // only the rest of it; the server need not have both on their way
                drop(data);
                download(from).await?.1
            }
        };
        let crc = checksum(&mut file, from).await?;
        let mut file = Checked::rest(file, crc, from);
        let sum = file.sum();
        let id = self.started(name, false, size, file.sum()).await;
        let outcome = async {
            // one byte too many is enough to know
            let data = Data::reader(data.take(size - from + 1));
            let written = data.write_to(&mut file).await;
            file.flush().await?;
            written?;
            if (sum.len(), sum.crc()) != (size, info.crc) {
                fs::remove_file(claim.path()).await?;
                bail!("{MISMATCH}");
            }
            let target = self.free_name(&kept, size, info.crc).await?;
            fs::rename(claim.path(), &target).await?;
            Ok(done(&shown(&target), "here", size, from, info.crc))
        };
        let outcome = outcome.await;
        self.ended(id, outcome).await;
        Ok(())
    }

    /// Gets a file by the flat calls: all of it, as what came before cannot be told to them.
    async fn download_whole(&self, room: &str, name: &str, kept: &str) -> anyhow::Result<()> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let partial = format!(".{kept}.{}.{id}.part", std::process::id());
        // what came of it is of no use to another download, and removed with this one
        let partial = TempPath::try_from_path(self.files.join(partial))?;
        let mut started = None;
        let got = flat::get(&self.chat, room, name, async |size| {
            let file = Checked::new(File::create(&partial).await?);
            let id = self.started(name, false, size, file.sum()).await;
            started = Some((id, file.sum()));
            Ok(file)
        })
        .await;
        let Some((id, sum)) = started else {
            return got.map(drop);
        };
        let outcome = async {
            let (size, crc, _) = got?;
            ensure!(crc == sum.crc(), MISMATCH);
            let target = self.free_name(kept, size, crc).await?;
            partial.persist(&target)?;
            Ok(done(&shown(&target), "here", size, 0, crc))
        };
        let outcome = outcome.await;
        self.ended(id, outcome).await;
        Ok(())
    }

    /// A path for a file that came, where nothing is, or the same file.
    async fn free_name(&self, kept: &str, size: u64, crc: u32) -> anyhow::Result<PathBuf> {
        let mut path = self.files.join(kept);
        let mut number = 1;
        loop {
            match fs::symlink_metadata(&path).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
                Err(error) => return Err(error.into()),
                Ok(there) if there.is_file() && there.len() == size => {
                    if crc_of(&path, size).await.is_ok_and(|other| other == crc) {
                        return Ok(path);
                    }
                }
                Ok(_) => {}
            }
            number += 1;
            path = self.files.join(format!("{kept}~{number}"));
        }
    }

    /// Lets bots loose over this connection, whose nick and room are theirs until they are done.
    async fn spam(&self, how: &str) -> anyhow::Result<String> {
        let plan: Plan = how.parse().map_err(anyhow::Error::msg)?;
        let (room, nick) = (self.room(), lock(&self.nick).clone());
        let figures = Arc::new(Figures::new());
        let peers = [self.connection.peer()];
        let swarm = swarm(plan, &peers, self.flat, &figures);
        tokio::pin!(swarm);
        while timeout(LOOK, &mut swarm).await.is_err() {
            self.tell(Event::Answer(figures.now())).await;
        }
        self.nick(&nick).await?;
        self.goto(&room).await?;
        Ok(figures.summary())
    }

    async fn started(&self, name: &str, up: bool, size: u64, passed: Arc<Sum>) -> u64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let name = name.to_owned();
        let transfer = Transfer {
            id,
            name,
            up,
            size,
            passed,
        };
        self.tell(Event::Started(transfer)).await;
        id
    }

    async fn ended(&self, id: u64, outcome: anyhow::Result<String>) {
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        self.tell(Event::Ended { id, outcome }).await;
    }

    /// Adds to what happens.
    pub(super) async fn tell(&self, event: Event) {
        // who has stopped listening is about to leave
        let _ = self.tell.send(event).await;
    }

    /// Says goodbye.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close(SOON).await?)
    }

    /// The room one is in.
    pub(super) fn room(&self) -> String {
        self.place.borrow().1.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

async fn crc_of(path: &Path, size: u64) -> std::io::Result<u32> {
    checksum(&mut File::open(path).await?, size).await
}

fn shown(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn done(name: &str, how: &str, size: u64, from: u64, crc: u32) -> String {
    let name = names::shown_line(name);
    let gone_on = match from {
        0 => String::new(),
        from => format!(", went on at {from}"),
    };
    format!("{name}: {size} bytes {how}, CRC-32 {crc:08x}{gone_on}")
}

fn listing(title: &str, files: &[(u64, String)]) -> String {
    let mut text = format!("{title}: {}", files.len());
    for (size, name) in files {
        text.push_str(&format!("\n{size:>12}  {}", names::shown_line(name)));
    }
    text
}
