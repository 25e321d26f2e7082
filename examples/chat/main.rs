//! A chat: rooms, nicks, history, files, and bots that put it under load. All that its peers say to
//! each other is in `protocol.rs`.

mod client;
mod files;
mod names;
mod protocol;
mod server;
mod spam;
mod store;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A chat with rooms and files.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the chat, until Ctrl-C.
    Serve {
        /// Where: tcp://host:port, unix:///path. May be given more than once.
        #[arg(
            long = "addr",
            value_name = "ADDR",
            default_value = "tcp://127.0.0.1:4040"
        )]
        addresses: Vec<String>,
        /// Where what is said and the files are kept.
        #[arg(long, value_name = "DIR", default_value = "chat-server")]
        dir: PathBuf,
    },
    /// Joins a chat.
    Join(client::Join),
    /// Lets bots loose on a chat.
    Spam(spam::Spam),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Serve { addresses, dir } => serve(&addresses, dir).await,
        Command::Join(join) => client::join(join).await,
        Command::Spam(spam) => spam::spam(spam).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(addresses: &[String], dir: PathBuf) -> anyhow::Result<()> {
    let serving = server::serve(addresses, &dir).await?;
    for address in serving.addresses() {
        println!("serving at {address}");
    }
    tokio::signal::ctrl_c().await?;
    serving.shutdown().await;
    Ok(())
}
