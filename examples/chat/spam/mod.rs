//! Bots that talk, change rooms and nicks, send files up and get them back, and check every byte.

mod bot;
mod figures;

use std::{ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use hbi::{Connection, Peer, prelude::*};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

pub(crate) use self::figures::Figures;
use self::{bot::Bot, bot::Ear};
use crate::{
    flat,
    protocol::{self, ChatterHost, FILE, Msg, MsgsInRoom},
};

/// Between two looks at the figures.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// How many bots there may be.
const BOTS: RangeInclusive<u64> = 1..=10_000;

/// How to spam.
#[derive(Debug, Args)]
pub(crate) struct Spam {
    /// The server's address, as it tells it.
    address: String,
    #[command(flatten)]
    plan: Plan,
    /// All bots over one connection, rather than one each.
    #[arg(long)]
    share: bool,
}

/// What the bots do.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Plan {
    /// How many bots. A server takes so many connections of one address only (256, where it is one of
    /// this chat): with more bots, --share.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(BOTS))]
    pub(crate) bots: u64,
    /// In how many rooms.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) rooms: u64,
    /// How many lines each bot says.
    #[arg(long, default_value_t = 100)]
    pub(crate) msgs: u64,
    /// How many files each bot sends up and gets back.
    #[arg(long, default_value_t = 10)]
    pub(crate) files: u64,
    /// How large the files are, in KiB.
    #[arg(long, value_name = "FROM..TO", default_value = "24..2048", value_parser = sizes)]
    pub(crate) file_kb: (u64, u64),
}

impl FromStr for Plan {
    type Err = String;

    /// `BOTS MSGS FILES`, each of which may be left out from the end.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = [4, 50, 5];
        let words: Vec<_> = text.split_whitespace().collect();
        if let Some(word) = words.get(fields.len()) {
            return Err(format!("`{word}` is one too many: `* bots msgs files`"));
        }
        for (field, word) in fields.iter_mut().zip(words) {
            *field = word.parse().map_err(|error| format!("`{word}`: {error}"))?;
        }
        let [bots, msgs, files] = fields;
        if !BOTS.contains(&bots) {
            let (least, most) = (BOTS.start(), BOTS.end());
            return Err(format!("{bots} bots: expected {least} to {most}"));
        }
        Ok(Self {
            bots,
            rooms: 4,
            msgs,
            files,
            file_kb: (24, 2048),
        })
    }
}

fn sizes(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("`{text}`: {error}"))
    };
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(format!("{from} is more than {to}"));
    }
    if to > FILE >> 10 {
        return Err(format!(
            "{to} is more than {}, of which the largest file is",
            FILE >> 10
        ));
    }
    Ok((from, to))
}

/// Spams a server with connections of its own; prints figures while it does, and at the end.
pub(crate) async fn spam(spam: Spam) -> anyhow::Result<()> {
    let figures = Arc::new(Figures::new());
    let count = if spam.share { 1 } else { spam.plan.bots };
    let mut connections = Vec::new();
    for _ in 0..count {
        let connection = connect(&spam.address, &figures).await;
        connections.push(connection.with_context(|| format!("cannot join {}", spam.address))?);
    }
    let peers: Vec<_> = connections.iter().map(Connection::peer).collect();
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let looking = tokio::spawn({
        let (figures, bar) = (Arc::clone(&figures), bar.clone());
        async move {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                bar.set_message(figures.now());
                bar.tick();
            }
        }
    });
    let flat = flat::only(&spam.address);
    swarm(spam.plan, &peers, flat, &figures).await;
    looking.abort();
    bar.finish_and_clear();
    println!("{}", figures.summary());
    for connection in connections {
        connection.close(Duration::from_secs(5)).await?;
    }
    ensure!(figures.failures() == 0, "{} failures", figures.failures());
    Ok(())
}

/// Lets bots loose, dealt out to connections, and waits until they are done. `flat` tells whether
/// the server may have the flat calls only.
pub(crate) async fn swarm(plan: Plan, peers: &[Peer], flat: bool, figures: &Arc<Figures>) {
    let mut bots = JoinSet::new();
    for (number, peer) in (0..plan.bots).zip(peers.iter().cycle()) {
        bots.spawn(Bot::new(number, plan, peer, flat, Arc::clone(figures)).run());
    }
    while let Some(done) = bots.join_next().await {
        if let Err(error) = done {
            figures.failed(format!("a bot broke down: {error}"));
        }
    }
}

async fn connect(address: &str, figures: &Arc<Figures>) -> hbi::Result<Connection> {
    let env = HostingEnv::new()
        .service(ChatterHost::new(Ear(Arc::clone(figures))))
        .constructor::<Msg>()
        .constructor::<MsgsInRoom>();
    protocol::chatter_options().connect(address, env).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_within_bounds_is_taken_and_no_other() {
        let plan: Plan = "2 3".parse().expect("a plan");
        assert_eq!((plan.bots, plan.msgs, plan.files), (2, 3, 5));
        for text in ["0", "100000000", "1 2 3 4", "two"] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
        assert_eq!(sizes("24..2048"), Ok((24, 2048)));
        assert_eq!(sizes("7"), Ok((7, 7)));
        for text in ["3..2", "0..18446744073709551615", "300000000", "1.."] {
            assert!(sizes(text).is_err(), "{text}");
        }
    }
}
