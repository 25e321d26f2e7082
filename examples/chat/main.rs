//! A chat: rooms, nicks, history, files, and bots that put it under load. All that its peers say to
//! each other is in `protocol.rs`.

mod claims;
mod cli;
mod client;
mod files;
mod flat;
mod names;
mod partial;
mod protocol;
mod server;
mod space;
mod spam;
mod store;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run(cli::Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}
