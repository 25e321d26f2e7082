//! The state that all connections share: members, rooms, what is said.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hbi::Peer;
use tokio::sync::{mpsc, oneshot};

use super::member::Member;
use crate::{
    files::Files,
    names,
    protocol::{LOBBY, Msg},
    store::{KEPT, Store},
};

/// The most rooms, those that only keep something included.
const ROOMS: usize = 1000;

/// The most lines that are kept in one go.
const BATCH: usize = 256;

/// How often those that were too slow are looked after.
const LOOK: Duration = Duration::from_millis(500);

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) files: Files,
    store: Arc<Store>,
    state: Mutex<State>,
    sayings: mpsc::Sender<Saying>,
    ids: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    /// Rooms with somebody in them.
    rooms: HashMap<String, Room>,
    /// Nicks in use, in small letters.
    nicks: HashSet<String>,
    /// All rooms that keep something.
    kept: HashSet<String>,
}

#[derive(Debug, Default)]
struct Room {
    members: BTreeSet<u64>,
    /// The number of the first line that is not in `lines`.
    next: u64,
    lines: VecDeque<Msg>,
}

/// A line on its way to the disk.
#[derive(Debug)]
struct Saying {
    room: String,
    msg: Msg,
    /// Who said it.
    by: u64,
    /// Under which number; nothing where it was said for them.
    number: Option<i64>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Hub {
    /// Opens what is kept. Has to be called within a runtime.
    pub(super) fn open(store: Store, dir: &Path) -> anyhow::Result<Arc<Self>> {
        let (sayings, queue) = mpsc::channel(BATCH);
        let kept = store.rooms()?.into_iter().collect();
        let hub = Arc::new(Self {
            files: Files::new(dir),
            store: Arc::new(store),
            state: Mutex::new(State {
                kept,
                ..State::default()
            }),
            sayings,
            ids: AtomicU64::new(1),
        });
        tokio::spawn(write(Arc::downgrade(&hub), queue));
        tokio::spawn(look_after(Arc::downgrade(&hub)));
        Ok(hub)
    }

    /// A number for somebody who comes.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Somebody comes into the lobby.
    pub(super) fn join(&self, id: u64, peer: &Peer) {
        let mut state = self.lock();
        let nick = state.free_nick(names::nick(&format!("Stranger${}", peer.address())), "");
        let mut member = Member::new(peer, nick.clone(), LOBBY.to_owned());
        member.push(|chatter| chatter.nick_changed(nick.clone()));
        member.push(|chatter| chatter.in_room(LOBBY));
        let rooms = state.open_rooms();
        let listed: String = rooms
            .iter()
            .map(|(room, count)| format!("\n  -*-\t{count} chatter(s) in room #{room}"))
            .collect();
        let welcome = format!(
            "\n@@ Welcome {nick}, this is chat service at {} !\n -\n@@ There're {} room(s) open, and you are in #{LOBBY} \
             now.\n{listed}",
            peer.local_address(),
            rooms.len(),
        );
        member.push(|chatter| chatter.show_notice(welcome));
        state.members.insert(id, member);
        self.enter(&mut state, id, LOBBY);
        let (members, room) = state.room(LOBBY);
        if let (Some(member), Some(room)) = (members.get_mut(&id), room)
            && !room.lines.is_empty()
        {
            member.push_lines(room.lines.iter());
        }
    }

    /// Somebody is gone.
    pub(super) fn leave(&self, id: u64) {
        let mut state = self.lock();
        state.exit(id);
        if let Some(member) = state.members.remove(&id) {
            state.nicks.remove(&member.nick.to_lowercase());
        }
    }

    /// Somebody goes to another room.
    pub(super) fn goto(&self, id: u64, wanted: &str) {
        let room = names::room(wanted);
        let mut state = self.lock();
        if let Err(full) = state.check_room(&room) {
            state.notice(id, format!("\n@@ {full}\n"));
            if let Some(member) = state.members.get_mut(&id) {
                let room = member.room.clone();
                member.push(|chatter| chatter.in_room(room));
            }
            return;
        }
        state.exit(id);
        self.enter(&mut state, id, &room);
        let (members, Some(open)) = state.room(&room) else {
            return;
        };
        let Some(member) = members.get_mut(&id) else {
            return;
        };
        let count = open.members.len();
        member.push(|chatter| chatter.in_room(&room));
        let notice = format!("\n@@ You are in #{room} now, {count} chatter(s).\n");
        member.push(|chatter| chatter.show_notice(notice));
        member.push_lines(open.lines.iter());
    }

    /// Gives somebody a nick; answers which.
    pub(super) fn rename(&self, id: u64, wanted: &str) -> String {
        let mut state = self.lock();
        let Some(member) = state.members.get(&id) else {
            return String::new();
        };
        let (old, room) = (member.nick.clone(), member.room.clone());
        let mut nick = names::nick(wanted);
        if nick.is_empty() {
            nick = member.stranger.clone();
        }
        let nick = state.free_nick(nick, &old);
        if nick == old {
            return nick;
        }
        if let Some(member) = state.members.get_mut(&id) {
            member.nick = nick.clone();
        }
        state.others(id, &room, |member| {
            let notice = format!("\n@@ {old} is known as {nick} now.\n");
            member.push(|chatter| chatter.show_notice(notice));
        });
        nick
    }

    /// Somebody says something in a room, the own one where none is named. It is kept on disk when
    /// this returns.
    pub(super) async fn say(
        &self,
        id: u64,
        room: Option<&str>,
        number: Option<i64>,
        text: String,
    ) -> Result<(), String> {
        let (done, kept) = oneshot::channel();
        let (room, from) = {
            let state = self.lock();
            let member = state.members.get(&id).ok_or("you are not here any more")?;
            let room = room.unwrap_or(&member.room);
            state.check_room(room)?;
            (room.to_owned(), member.nick.clone())
        };
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let msg = Msg {
            from,
            text,
            time: time.as_secs_f64(),
        };
        let saying = Saying {
            room,
            msg,
            by: id,
            number,
            done,
        };
        let stopped = "the server is about to stop";
        self.sayings.send(saying).await.map_err(|_| stopped)?;
        kept.await.map_err(|_| stopped)?
    }

    /// Shows something to one.
    pub(super) fn notice(&self, id: u64, text: String) {
        self.lock().notice(id, text);
    }

    /// The nicks in a room, in order.
    pub(super) fn members(&self, room: &str) -> Vec<String> {
        let state = self.lock();
        let ids = state
            .rooms
            .get(room)
            .into_iter()
            .flat_map(|room| &room.members);
        let members = ids.filter_map(|id| state.members.get(id));
        let mut nicks: Vec<_> = members.map(|member| member.nick.clone()).collect();
        nicks.sort();
        nicks
    }

    /// The rooms that are open, and how many are in each.
    pub(super) fn open_rooms(&self) -> Vec<(String, u64)> {
        self.lock().open_rooms()
    }

    /// Puts a member into a room, and tells the others.
    fn enter(&self, state: &mut State, id: u64, name: &str) {
        if !state.rooms.contains_key(name) {
            let kept = self.store.room(name).unwrap_or_else(|error| {
                eprintln!("what was said in #{name} cannot be read: {error}");
                Default::default()
            });
            let room = Room {
                members: BTreeSet::new(),
                next: kept.next,
                lines: kept.lines.into(),
            };
            state.rooms.insert(name.to_owned(), room);
        }
        if let Some(room) = state.rooms.get_mut(name) {
            room.members.insert(id);
        }
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        member.room = name.to_owned();
        let nick = member.nick.clone();
        state.others(id, name, |member| {
            member.push(|chatter| chatter.chatter_joined(&nick, name));
        });
    }

    /// Gives a line that is on disk to those in its room.
    fn deliver(&self, saying: &Saying, number: u64) {
        let mut state = self.lock();
        state.kept.insert(saying.room.clone());
        let (members, room) = state.room(&saying.room);
        // who came meanwhile has read it from disk
        if let Some(room) = room.filter(|room| number >= room.next) {
            room.next = number + 1;
            room.lines.push_back(saying.msg.clone());
            if room.lines.len() as u64 > KEPT {
                room.lines.pop_front();
            }
            for id in room.members.iter().filter(|id| **id != saying.by) {
                if let Some(member) = members.get_mut(id) {
                    member.push_lines(std::iter::once(&saying.msg));
                }
            }
        }
        if let Some(number) = saying.number
            && let Some(member) = state.members.get_mut(&saying.by)
        {
            member.push(|chatter| chatter.said(number));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl State {
    fn room(&mut self, name: &str) -> (&mut HashMap<u64, Member>, Option<&mut Room>) {
        (&mut self.members, self.rooms.get_mut(name))
    }

    /// Whether there may be such a room: there is, or few enough others are open or keep something.
    fn check_room(&self, room: &str) -> Result<(), String> {
        let known = self.kept.contains(room) || self.rooms.contains_key(room);
        let open = self.rooms.keys();
        let fresh = open.filter(|room| !self.kept.contains(*room)).count();
        match known || self.kept.len() + fresh < ROOMS {
            true => Ok(()),
            false => Err(format!("There are {ROOMS} rooms, pick one of them.")),
        }
    }

    /// Takes a nick that nobody else has.
    fn free_nick(&mut self, wanted: String, old: &str) -> String {
        self.nicks.remove(&old.to_lowercase());
        let mut nick = wanted.clone();
        for n in 2_u64.. {
            if self.nicks.insert(nick.to_lowercase()) {
                break;
            }
            nick = format!("{wanted}~{n}");
        }
        nick
    }

    /// Takes a member out of its room, and tells the others.
    fn exit(&mut self, id: u64) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let (nick, name) = (member.nick.clone(), member.room.clone());
        let Some(room) = self.rooms.get_mut(&name) else {
            return;
        };
        if !room.members.remove(&id) {
            return;
        }
        if room.members.is_empty() {
            // what was said is on disk
            self.rooms.remove(&name);
            return;
        }
        self.others(id, &name, |member| {
            member.push(|chatter| chatter.chatter_left(&nick, &name));
        });
    }

    /// Does something for all in a room but one.
    fn others(&mut self, but: u64, room: &str, mut each: impl FnMut(&mut Member)) {
        let (members, Some(room)) = self.room(room) else {
            return;
        };
        for id in room.members.iter().filter(|id| **id != but) {
            if let Some(member) = members.get_mut(id) {
                each(member);
            }
        }
    }

    fn notice(&mut self, id: u64, text: String) {
        if let Some(member) = self.members.get_mut(&id) {
            member.push(|chatter| chatter.show_notice(text));
        }
    }

    /// The rooms that are open, the lobby always.
    fn open_rooms(&self) -> Vec<(String, u64)> {
        let count = |room: &Room| room.members.len() as u64;
        let mut rooms: Vec<_> = self
            .rooms
            .iter()
            .map(|(name, room)| (name.clone(), count(room)))
            .collect();
        if !self.rooms.contains_key(LOBBY) {
            rooms.push((LOBBY.to_owned(), 0));
        }
        rooms.sort();
        rooms
    }
}

/// Writes what is said to disk, as much at once as there is, then delivers and acknowledges it: one
/// order for all.
async fn write(hub: Weak<Hub>, mut queue: mpsc::Receiver<Saying>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let Some(hub) = hub.upgrade() else {
            return;
        };
        let store = Arc::clone(&hub.store);
        let sayings = std::mem::take(&mut batch);
        let written = tokio::task::spawn_blocking(move || {
            let lines = sayings.iter().map(|saying| (&*saying.room, &saying.msg));
            let numbers = store.append(lines);
            (sayings, numbers)
        });
        let Ok((sayings, numbers)) = written.await else {
            // whoever waits is told, since what it waits for is dropped
            continue;
        };
        match numbers {
            Ok(numbers) => {
                for (saying, number) in sayings.into_iter().zip(numbers) {
                    hub.deliver(&saying, number);
                    // who said it may be gone
                    let _ = saying.done.send(Ok(()));
                }
            }
            Err(error) => {
                for saying in sayings {
                    let _ = saying.done.send(Err(format!("it cannot be kept: {error}")));
                }
            }
        }
    }
}

/// Tells those that were too slow what they missed, once they listen again.
async fn look_after(hub: Weak<Hub>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let Some(hub) = hub.upgrade() else {
            return;
        };
        hub.lock()
            .members
            .values_mut()
            .for_each(Member::tell_missed);
    }
}
