//! The client in a terminal: takes keys and events, draws what came of them.

use std::{io::stdout, sync::Arc, time::Duration};

use anyhow::bail;
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{
            self, DisableBracketedPaste, EnableBracketedPaste, Event as Typed, KeyCode, KeyEvent,
            KeyEventKind, KeyModifiers,
        },
        execute,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    command::Command,
    event::Event,
    input::Wanted,
    model::{Model, Status},
    session::Session,
    view,
};

/// How often progress is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// How many events are taken in before it is drawn again.
const AT_ONCE: usize = 256;

/// Chats in the terminal until the end.
pub(super) async fn run(
    session: &Arc<Session>,
    address: String,
    first: Vec<Command>,
    events: mpsc::Receiver<Event>,
) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init()?;
    // without it pasted lines are typed ones, which is no failure
    let _ = execute!(stdout(), EnableBracketedPaste);
    let screen = Screen {
        session: Arc::clone(session),
        model: Model {
            address,
            ..Model::default()
        },
        events,
        typed: typed(),
        tasks: JoinSet::new(),
        refreshing: false,
    };
    let done = screen.run(&mut terminal, first).await;
    let _ = execute!(stdout(), DisableBracketedPaste);
    ratatui::restore();
    done
}

struct Screen {
    session: Arc<Session>,
    model: Model,
    events: mpsc::Receiver<Event>,
    typed: mpsc::Receiver<Typed>,
    /// All that goes on; it ends with the screen.
    tasks: JoinSet<()>,
    /// Whether the members are asked for.
    refreshing: bool,
}

impl Screen {
    async fn run(
        mut self,
        terminal: &mut DefaultTerminal,
        first: Vec<Command>,
    ) -> anyhow::Result<()> {
        let commands = self.worker();
        for command in first {
            commands.send(command)?;
        }
        loop {
            terminal.draw(|frame| view::draw(frame, &mut self.model))?;
            self.refresh();
            let next = match self.model.transfers.is_empty() {
                true => Duration::from_secs(3600),
                false => FRAME,
            };
            let session = Arc::clone(&self.session);
            tokio::select! {
                Some(typed) = self.typed.recv() => {
                    if !self.take(typed, &commands) {
                        break;
                    }
                }
                Some(event) = self.events.recv() => {
                    self.update(event);
                    for _ in 0..AT_ONCE {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.update(event);
                    }
                }
                Some(_) = self.tasks.join_next() => {}
                why = session.gone(), if self.model.gone.is_none() => {
                    self.update(Event::Gone(why.to_string()));
                }
                () = sleep_until(Instant::now() + next) => {}
            }
        }
        self.tasks.shutdown().await;
        match self.model.gone {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    fn update(&mut self, event: Event) {
        if matches!(event, Event::Members(_)) {
            self.refreshing = false;
        }
        self.model.update(&self.session, event);
    }

    /// Does commands one after the other, but what takes its time beside them.
    fn worker(&mut self) -> mpsc::UnboundedSender<Command> {
        let (send, mut commands) = mpsc::unbounded_channel::<Command>();
        let session = Arc::clone(&self.session);
        self.tasks.spawn(async move {
            let mut long = JoinSet::new();
            while let Some(command) = commands.recv().await {
                if command.is_long() {
                    let session = Arc::clone(&session);
                    long.spawn(async move { session.execute(command).await });
                } else {
                    session.execute(command).await;
                }
                while long.try_join_next().is_some() {}
            }
        });
        send
    }

    /// Asks who is here, when that may have changed.
    fn refresh(&mut self) {
        if !self.model.stale || self.refreshing || self.model.gone.is_some() {
            return;
        }
        self.model.stale = false;
        self.refreshing = true;
        let session = Arc::clone(&self.session);
        self.tasks.spawn(async move {
            let members = session.members().await.unwrap_or_default();
            session.tell(Event::Members(members)).await;
        });
    }

    /// Asks what could complete the line.
    fn complete(&mut self) {
        let Some(wanted) = self.model.input.complete() else {
            return;
        };
        let session = Arc::clone(&self.session);
        self.tasks.spawn(async move {
            let name = |(_, name): (u64, String)| name;
            let all = match &wanted {
                Wanted::Room(_) => session
                    .open_rooms()
                    .await
                    .map(|rooms| rooms.into_iter().map(|(room, _)| room).collect()),
                Wanted::LocalFile(_) => {
                    let files = session.local().await;
                    files.map(|files| files.into_iter().map(name).collect())
                }
                Wanted::ServerFile(_) => {
                    let files = session.remote().await;
                    files.map(|files| files.into_iter().map(name).collect())
                }
                Wanted::Nick(_) => session.members().await,
            };
            // a line that cannot be completed stays as it is
            let all: Vec<String> = all.unwrap_or_default();
            session.tell(Event::Candidates(wanted, all)).await;
        });
    }

    /// Takes what was typed; whether to go on.
    fn take(&mut self, typed: Typed, commands: &mpsc::UnboundedSender<Command>) -> bool {
        let key = match typed {
            Typed::Key(key) if key.kind != KeyEventKind::Release => key,
            Typed::Paste(text) => {
                let line = text.replace(['\r', '\n'], " ");
                self.model.input.insert(&line);
                return true;
            }
            _ => return true,
        };
        if is_end(key, self.model.input.text().is_empty()) {
            return false;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let input = &mut self.model.input;
        match (key.code, control) {
            (KeyCode::Enter, _) if self.model.gone.is_some() => return false,
            (KeyCode::Enter, _) => {
                self.model.status = Status::Nothing;
                self.model.scrolled = 0;
                let command = Command::parse(&input.take());
                // the worker lives as long as this
                let _ = commands.send(command);
            }
            (KeyCode::Tab, _) => self.complete(),
            (KeyCode::Esc, _) => {
                self.model.status = Status::Nothing;
                self.model.scrolled = 0;
            }
            (KeyCode::PageUp, _) => self.model.scrolled += 10,
            (KeyCode::PageDown, _) => {
                self.model.scrolled = self.model.scrolled.saturating_sub(10);
            }
            (KeyCode::Up, _) => input.earlier(),
            (KeyCode::Down, _) => input.later(),
            (KeyCode::Left, _) => input.left(),
            (KeyCode::Right, _) => input.right(),
            (KeyCode::Home, _) | (KeyCode::Char('a'), true) => input.home(),
            (KeyCode::End, _) | (KeyCode::Char('e'), true) => input.end(),
            (KeyCode::Backspace, _) => input.backspace(),
            (KeyCode::Delete, _) => input.delete(),
            (KeyCode::Char('u'), true) => input.delete_before(),
            (KeyCode::Char('k'), true) => input.delete_behind(),
            (KeyCode::Char('w'), true) => input.delete_word(),
            (KeyCode::Char(c), false) => input.insert(c.encode_utf8(&mut [0; 4])),
            _ => {}
        }
        true
    }
}

/// Whether a key ends the program: Ctrl-C, or Ctrl-D on an empty line.
fn is_end(key: KeyEvent, empty: bool) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') => control,
        KeyCode::Char('d') => control && empty,
        _ => false,
    }
}

/// What is typed. A thread reads it, which does not keep the program from ending.
fn typed() -> mpsc::Receiver<Typed> {
    let (send, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    });
    typed
}
