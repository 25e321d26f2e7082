//! The client: joins a server, with a terminal interface or line by line.

mod command;
mod event;
mod input;
mod model;
mod plain;
mod screen;
mod session;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{IsTerminal, stdin, stdout},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use tokio::sync::mpsc;

use self::{command::Command, session::Session};

/// How many events may wait to be shown; a server that pushes more waits.
const EVENTS: usize = 1024;

/// How to join.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The server's address, as it tells it.
    address: String,
    /// The nick to ask for.
    #[arg(long)]
    nick: Option<String>,
    /// The room to go to.
    #[arg(long)]
    room: Option<String>,
    /// Where files are sent from and put to.
    #[arg(long, value_name = "DIR", default_value = "chat-files")]
    files: PathBuf,
    /// Reads commands line by line and prints plain lines, also where there is a terminal.
    #[arg(long)]
    plain: bool,
}

/// Joins a server and chats until the end.
pub(crate) async fn join(join: Join) -> anyhow::Result<()> {
    let (tell, events) = mpsc::channel(EVENTS);
    let session = Session::connect(&join.address, join.files, tell).await?;
    let session = Arc::new(session);
    let mut first = vec![Command::Arrive];
    first.extend(join.nick.map(Command::Nick));
    first.extend(join.room.map(Command::Room));
    let plain = join.plain || !stdin().is_terminal() || !stdout().is_terminal();
    let done = if plain {
        plain::run(&session, first, events).await
    } else {
        screen::run(&session, join.address, first, events).await
    };
    done?;
    // all tasks that shared it have ended
    if let Some(session) = Arc::into_inner(session) {
        session.close().await?;
    }
    Ok(())
}
