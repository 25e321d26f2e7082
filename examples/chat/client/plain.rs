//! The client without a terminal: commands from standard input, plain lines to standard output.

use std::io::{BufRead, Write};

use anyhow::bail;
use tokio::sync::mpsc;

use super::{command::Command, event::Event, session::Session};
use crate::names;

/// Chats until standard input ends.
pub(super) async fn run(
    session: &Session,
    first: Vec<Command>,
    mut events: mpsc::Receiver<Event>,
) -> anyhow::Result<()> {
    let mut lines = typed();
    let mut nick = String::new();
    let doing = async {
        for command in first {
            session.execute(command).await;
        }
        // one after the other, so that a script's lines are done in their order
        while let Some(line) = lines.recv().await {
            session.execute(Command::parse(&line)).await;
        }
    };
    tokio::pin!(doing);
    let gone = loop {
        tokio::select! {
            Some(event) = events.recv() => show(session, event, &mut nick)?,
            () = &mut doing => break None,
            why = session.gone() => break Some(why),
        }
    };
    // what the last command brought, or the server said before it was gone
    while let Ok(event) = events.try_recv() {
        show(session, event, &mut nick)?;
    }
    if let Some(why) = gone {
        show(session, Event::Gone(why.to_string()), &mut nick)?;
        bail!("the connection is gone");
    }
    Ok(())
}

/// The lines of standard input. A thread reads them, which does not keep the program from ending.
fn typed() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().split(b'\n');
        for line in lines.map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if send.blocking_send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Prints what happened.
fn show(session: &Session, event: Event, nick: &mut String) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match event {
        Event::Nick(name) => {
            writeln!(out, "* you are {}", names::shown_line(&name))?;
            *nick = name;
        }
        Event::Room(room) => {
            writeln!(out, "* you are in #{}", names::shown_line(&room))?;
        }
        Event::Notice(text) => {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                writeln!(out, "{}", names::shown(line))?;
            }
        }
        Event::Lines(said) => {
            for msg in said.msgs {
                line(&mut out, &msg.from, &msg.text)?;
            }
        }
        Event::Joined { nick, room } => {
            let (nick, room) = (names::shown_line(&nick), names::shown_line(&room));
            writeln!(out, "+ {nick} came into #{room}")?;
        }
        Event::Left { nick, room } => {
            let (nick, room) = (names::shown_line(&nick), names::shown_line(&room));
            writeln!(out, "- {nick} left #{room}")?;
        }
        Event::Said(id) => {
            if let Some(text) = session.said(id) {
                line(&mut out, nick, &text)?;
            }
        }
        // nobody asks for these here
        Event::Members(_) | Event::Candidates(..) => {}
        Event::Answer(text) => writeln!(out, "{}", names::shown(&text))?,
        Event::Failed(why) => writeln!(out, "! {}", names::shown(&why))?,
        Event::Started(file) => {
            let way = if file.up { "sending" } else { "getting" };
            let name = names::shown_line(&file.name);
            writeln!(out, "* {way} {name}, {} bytes", file.size)?;
        }
        Event::Ended { outcome, .. } => match outcome {
            Ok(text) => writeln!(out, "* {text}")?,
            Err(why) => writeln!(out, "! {}", names::shown(&why))?,
        },
        Event::Gone(why) => writeln!(out, "! {}", names::shown(&why))?,
    }
    out.flush()
}

fn line(out: &mut impl Write, nick: &str, text: &str) -> std::io::Result<()> {
    writeln!(
        out,
        "<{}> {}",
        names::shown_line(nick),
        names::shown_line(text.trim())
    )
}
