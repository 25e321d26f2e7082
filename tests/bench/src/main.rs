//! The benchmark program: measures hbi, the machine's floor and other libraries on the same works.
//!
//! ```text
//! cargo run --release -p hbi-bench -- all                     # hbi, the floors, and the others
//! cargo run --release -p hbi-bench --no-default-features -- all    # hbi and the floors: builds fast
//! cargo run --release -p hbi-bench -- all --work pipe_64 --peer raw --peer rawmux --pin
//! cargo run --release -p hbi-bench -- scale --chart target/charts
//! cargo run --release -p hbi-bench --features allocations -- all   # counts allocations too
//! ```
//!
//! # How it is kept honest
//!
//! - **The same work.** A work is written once, over the trait [`Client`](peers::Client): every peer
//!   adds the same numbers, echoes the same bytes and moves the same GiB, and answers are checked. A
//!   peer does it in the way that suits it best (a stream where it has one, calls of 64 KiB where it
//!   has none), which the comment at the top of its file tells. What a peer cannot do is listed with
//!   the reason, and so is what failed.
//! - **The same ground.** Server and client are processes of their own, started anew for every
//!   single measurement: no peer finds the heap or the caches as another left them. Both run tokio
//!   on a single thread, over loopback with `TCP_NODELAY`.
//! - **Warm-up** before each measurement, which is not counted.
//! - **Rounds** go around all peers before the next one begins, so that a machine that slows down
//!   does so for all. A figure is the median of its rounds; the spread, from the lowest to the
//!   highest, stands beside it.
//! - **Pinning.** With `--pin` both processes share one core. That is the steadier figure, since
//!   nobody sleeps while the other works; without it, wake-ups across cores dominate. Which of the
//!   two it was is printed with the figures, and figures of different runs are not to be compared.
//! - **CPU per call** comes from the accounts of both processes for the very span measured, as the
//!   operating system keeps them.
//! - **The floors.** `raw` is a loop written by hand for its work. `rawmux` adds what a library
//!   cannot do without (a future per call, answers found by number, one writer for all), and is what
//!   the ratios relate to.
//! - Where another library is better than hbi, a line below the tables says so.

mod chart;
mod measure;
mod peers;
mod process;
mod relay;
mod report;
mod works;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::{
    measure::{Run, Span},
    works::Work,
};

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Measures hbi, the machine's floor and other libraries on the same works"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure every work on every peer, or those chosen
    All {
        /// A work to measure; may be given several times. All by default
        #[arg(long)]
        work: Vec<Work>,
        #[command(flatten)]
        common: Common,
    },
    /// Measure how the cost of a call changes with how much of everything there is
    Scale {
        #[command(flatten)]
        common: Common,
    },
    /// List the works and the peers
    List,
    /// Serve a peer until standard input closes
    #[command(hide = true)]
    Serve { peer: String, work: Work },
    /// Pass bytes on between a client and a server, late
    #[command(hide = true)]
    Relay { address: String, delay_ms: u64 },
    /// Do a work of hbi so many times in this process and nothing else, for a tool that counts
    #[command(hide = true)]
    Repeat { work: Work, times: usize },
    /// Measure one work once
    #[command(hide = true)]
    Measure {
        peer: String,
        work: Work,
        #[command(flatten)]
        span: SpanArgs,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// A peer to measure; may be given several times. All by default
    #[arg(long)]
    peer: Vec<String>,
    /// How many times each is measured; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON object a line to standard output; the tables go to standard error
    #[arg(long)]
    json: bool,
    /// Draw charts, as SVG and PNG, and write the tables, as Markdown, into this directory
    #[arg(long, value_name = "DIR")]
    chart: Option<PathBuf>,
    #[command(flatten)]
    span: SpanArgs,
}

#[derive(Debug, Args)]
struct SpanArgs {
    /// Let server and client share one core, this one
    #[arg(long, value_name = "CORE", num_args = 0..=1, default_missing_value = "0")]
    pin: Option<usize>,
    /// How long a measurement lasts, in seconds; a warm-up of a quarter of it comes before
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl SpanArgs {
    fn span(&self) -> Result<Span> {
        if !(0.01..=600.0).contains(&self.seconds) {
            bail!("--seconds {} is not between 0.01 and 600", self.seconds);
        }
        Ok(Span {
            pin: self.pin,
            measured: Duration::from_secs_f64(self.seconds),
        })
    }
}

fn main() -> Result<()> {
    process::raise_open_files()?;
    match Cli::parse().command {
        Command::All { work, common } => {
            let works = if work.is_empty() {
                Work::ALL.to_vec()
            } else {
                work
            };
            let measured = run(&common, works)?;
            report::show(&measured, common.json)?;
            if let Some(dir) = &common.chart {
                chart::works(&measured, dir)?;
                report::write(&measured, dir, "works")?;
            }
        }
        Command::Scale { common } => {
            let measured = run(&common, Work::scale())?;
            report::show(&measured, common.json)?;
            if let Some(dir) = &common.chart {
                chart::scale(&measured, dir)?;
                report::write(&measured, dir, "scale")?;
            }
        }
        Command::List => list(),
        Command::Serve { peer, work } => process::serve(&peer, work)?,
        Command::Relay { address, delay_ms } => {
            process::relay(&address, Duration::from_millis(delay_ms))?;
        }
        Command::Repeat { work, times } => process::repeat(work, times)?,
        Command::Measure { peer, work, span } => process::measure(&peer, work, &span.span()?)?,
    }
    Ok(())
}

fn run(common: &Common, works: Vec<Work>) -> Result<measure::Measured> {
    let mut peers = Vec::new();
    for entry in peers::all() {
        if common.peer.is_empty() || common.peer.iter().any(|name| name == entry.name) {
            peers.push(entry);
        }
    }
    for name in &common.peer {
        peers::named(name)?;
    }
    Run {
        works,
        peers,
        rounds: common.rounds,
        span: common.span.span()?,
    }
    .measure()
}

fn list() {
    println!("works");
    for work in Work::ALL {
        println!("  {:<10}  {}", work.to_string(), work.about());
    }
    println!("peers");
    for entry in peers::all() {
        println!("  {:<12}  {}", entry.name, entry.about);
    }
    for (name, why) in peers::LEFT_OUT {
        println!("  {name:<12}  left out: {why}");
    }
}
