//! The command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::{client, server, spam};

/// A chat with rooms and files.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
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

/// Does what the command line says.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    match options.command {
        Command::Serve { addresses, dir } => serve(&addresses, &dir).await,
        Command::Join(join) => client::join(join).await,
        Command::Spam(spam) => spam::spam(spam).await,
    }
}

async fn serve(addresses: &[String], dir: &Path) -> anyhow::Result<()> {
    let serving = server::serve(addresses, dir).await?;
    for address in serving.addresses() {
        println!("serving at {address}");
    }
    tokio::signal::ctrl_c().await?;
    serving.shutdown().await;
    Ok(())
}
