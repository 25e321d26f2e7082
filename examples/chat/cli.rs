//! The command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::{client, server, spam};

/// A chat with rooms and files.
#[derive(Debug, Parser)]
#[command(after_help = "In one terminal, and another:\n  \
    chat serve --addr tcp://127.0.0.1:4040 --addr quic://127.0.0.1:4041\n  \
    chat join tcp://127.0.0.1:4040 --nick Ann --room Tea\n  \
    chat spam tcp://127.0.0.1:4040 --bots 8 --msgs 100")]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the chat, until Ctrl-C.
    Serve {
        /// Where: tcp://host:port, tls://host:port, quic://host:port, unix:///path, and
        /// text+tcp://host:port or text+unix:///path for clients written in Python or Go. May be given
        /// more than once. Where there is a certificate, it is made in DIR, and the address that is
        /// told has its fingerprint.
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
