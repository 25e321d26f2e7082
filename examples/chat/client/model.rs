//! What the terminal interface shows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    event::{Event, Transfer},
    input::Input,
    session::Session,
};
use crate::names;

/// How many entries the message pane keeps.
const ENTRIES: usize = 2000;

/// What the terminal interface shows.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) address: String,
    pub(super) nick: String,
    pub(super) room: String,
    pub(super) members: Vec<String>,
    pub(super) entries: VecDeque<Entry>,
    pub(super) transfers: Vec<Running>,
    pub(super) status: Status,
    pub(super) input: Input,
    /// How many lines of the message pane are below its end.
    pub(super) scrolled: usize,
    /// Why the connection is gone.
    pub(super) gone: Option<String>,
    /// Whether the members may have changed.
    pub(super) stale: bool,
}

/// What the status line says.
#[derive(Debug, Default)]
pub(super) enum Status {
    #[default]
    Nothing,
    Info(String),
    Error(String),
}

/// An entry of the message pane; all texts can be shown.
#[derive(Debug)]
pub(super) enum Entry {
    /// Somebody said something.
    Said { nick: String, text: String },
    /// The server or this program told something.
    Told(String),
}

/// A transfer and when it began.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) transfer: Transfer,
    began: Instant,
    had: u64,
}

impl Running {
    /// The share that has passed, and how many bytes pass in a second.
    pub(super) fn progress(&self) -> (f64, f64) {
        let passed = self.transfer.passed.len();
        let seconds = self
            .began
            .elapsed()
            .max(Duration::from_millis(50))
            .as_secs_f64();
        let rate = (passed - self.had) as f64 / seconds;
        let size = self.transfer.size.max(1);
        ((passed as f64 / size as f64).min(1.0), rate)
    }
}

impl Model {
    /// Takes in what happened.
    pub(super) fn update(&mut self, session: &Session, event: Event) {
        match event {
            Event::Nick(nick) => {
                self.nick = names::shown_line(&nick);
                self.stale = true;
            }
            Event::Room(room) => {
                self.room = names::shown_line(&room);
                self.stale = true;
            }
            Event::Notice(text) => {
                self.tell(&text);
                self.stale = true;
            }
            Event::Lines(said) => {
                for msg in said.msgs {
                    self.said(&msg.from, &msg.text);
                }
            }
            Event::Joined { nick, room } => {
                self.tell(&format!("+ {nick} came into #{room}"));
                self.stale = true;
            }
            Event::Left { nick, room } => {
                self.tell(&format!("- {nick} left #{room}"));
                self.stale = true;
            }
            Event::Said(id) => {
                if let Some(text) = session.said(id) {
                    let nick = self.nick.clone();
                    self.said(&nick, &text);
                }
            }
            Event::Members(members) => {
                self.members = members.iter().map(|nick| names::shown_line(nick)).collect();
            }
            Event::Candidates(wanted, all) => {
                let all = all
                    .into_iter()
                    .filter(|name| names::shown_line(name) == *name);
                self.input.offer(&wanted, all.collect());
            }
            Event::Answer(text) => self.tell(&text),
            Event::Failed(why) => self.fail(&why),
            Event::Started(transfer) => {
                let had = transfer.passed.len();
                let began = Instant::now();
                self.transfers.push(Running {
                    transfer,
                    began,
                    had,
                });
            }
            Event::Ended { id, outcome } => {
                self.transfers.retain(|running| running.transfer.id != id);
                match outcome {
                    Ok(text) => {
                        self.tell(&format!("* {text}"));
                        self.status = Status::Info(text);
                    }
                    Err(why) => self.fail(&why),
                }
            }
            Event::Gone(why) => {
                self.fail(&format!("{why} (Enter ends)"));
                self.gone = Some(why);
            }
        }
    }

    /// Puts an error into the status line.
    fn fail(&mut self, why: &str) {
        self.status = Status::Error(names::shown_line(why.trim()));
    }

    fn tell(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.add(Entry::Told(names::shown(line).into_owned()));
        }
    }

    fn said(&mut self, nick: &str, text: &str) {
        self.add(Entry::Said {
            nick: names::shown_line(nick),
            text: names::shown_line(text.trim()),
        });
    }

    fn add(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.entries.len() > ENTRIES {
            self.entries.pop_front();
        }
    }
}
