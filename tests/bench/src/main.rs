//! The benchmark program: measures hbi, the machine's floor and other libraries on the same works.
//!
//! ```text
//! cargo run --release -p hbi-bench -- all                     # hbi, the floors, and the others
//! cargo run --release -p hbi-bench --no-default-features -- all    # hbi and the floors: builds fast
//! cargo run --release -p hbi-bench -- all --work pipe_64 --peer raw --peer rawmux --pin
//! cargo run --release -p hbi-bench -- scale --chart target/charts
//! cargo run --release -p hbi-bench --features allocations -- all   # counts allocations too
//! cargo run --release -p hbi-bench -- docs                    # the figures of docs/speed.md
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
//!   on a single thread, over loopback with `TCP_NODELAY`; only where methods compute has the server
//!   several threads.
//! - **Warm-up** before each measurement, which is not counted.
//! - **Rounds** go around all peers before the next one begins, so that a machine that slows down
//!   does so for all. A figure is the median of its rounds; the spread, from the lowest to the
//!   highest, stands beside it. A ratio is taken in each round, and its median shown.
//! - **Pinning.** With `--pin` both processes share one core, core 0 if none is named. That is the
//!   steadier figure, since nobody sleeps while the other works. With `--pin 0,1` the server has the
//!   first core and the client the second, and wake-ups across cores dominate; only where methods
//!   compute the server has both, since it is measured there whether it uses several. Without it the
//!   system places them, which is a mix of the two. Which it was is printed with the figures, and
//!   figures of different runs are not to be compared.
//! - **CPU per call** comes from the accounts of both processes for the very span measured, as the
//!   operating system keeps them.
//! - **The floors.** `raw` is a loop written by hand for its work. `rawmux` adds what a library
//!   cannot do without (a future per call, answers found by number, one writer for all), and is what
//!   the ratios relate to.
//! - Where another library is better than hbi (over TCP, if that was measured) by any figure of a table,
//!   a line below the tables says so. What each side by itself takes of the processor stands in the JSON
//!   only, and is not compared: both sides together are. A line also says where something beats its floor.

mod chart;
mod json;
mod measure;
mod page;
mod peers;
mod process;
mod relay;
mod report;
mod works;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::{
    measure::{Cores, Run, Span},
    works::Work,
};

const EXAMPLES: &str = "\
Examples:
  hbi-bench all                           every work on every peer, tables at the end
  hbi-bench all --work pipe_64 --work seq --peer rawmux --peer hbi-tcp --pin
  hbi-bench all --work seq --pin 0,1      the server on core 0, the client on core 1
  hbi-bench all --work pipe_256 --json    a number of your own; one JSON object a line
  hbi-bench scale --peer hbi-tcp --chart target/charts
  hbi-bench all --help                    says which works and peers there are";

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Measures hbi, the machine's floor and other libraries on the same works",
    // an option without its command is a likely slip, and this is what its error shows
    override_usage = "hbi-bench <all|scale|docs|list> [OPTIONS]",
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure every work on every peer, or those chosen
    #[command(after_help = known())]
    All {
        /// A work to measure; may be given several times. All by default
        #[arg(long)]
        work: Vec<Work>,
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        output: Output,
    },
    /// Measure how the cost of a call changes with how much of everything there is
    Scale {
        #[command(flatten)]
        choice: Choice,
        #[command(flatten)]
        output: Output,
    },
    /// Make the tables and charts of `speed.md` anew: `all` on one core and on two, and `scale`
    ///
    /// Built with the feature `allocations` it makes the table of allocations, and nothing else.
    Docs {
        /// The directory with the page, whose charts go into `speed` there
        #[arg(default_value = "docs")]
        dir: PathBuf,
        #[command(flatten)]
        choice: Choice,
    },
    /// List the works and the peers
    List,
    /// Serve a peer until standard input closes
    #[command(hide = true)]
    Serve {
        peer: String,
        work: Work,
        threads: usize,
    },
    /// Pass bytes on between a client and a server, late
    #[command(hide = true)]
    Relay { address: String, delay_ms: u64 },
    /// Do a work of hbi so many times in this process and nothing else, for a tool that counts
    #[command(hide = true)]
    Repeat { work: Work, times: NonZeroUsize },
    /// Measure one work once
    #[command(hide = true)]
    Measure {
        peer: String,
        work: Work,
        #[command(flatten)]
        span: SpanArgs,
    },
}

#[derive(Debug, Clone, Args)]
struct Choice {
    /// A peer to measure; may be given several times. All by default
    #[arg(long, value_parser = |name: &str| peers::named(name).map(|entry| entry.name.to_owned()))]
    peer: Vec<String>,
    /// How many times each is measured; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    span: SpanArgs,
}

#[derive(Debug, Args)]
struct Output {
    /// Print one JSON object a line to standard output; the tables go to standard error
    ///
    /// The first field of each, `kind`, says what it is. A `run` comes first: where and how it was
    /// measured, and in which round it was interrupted, if it was. A `figure` is a `metric` of a `work`
    /// on a `peer`: `value` is the median of as many `rounds` as it was measured in, `lowest` and
    /// `highest` are their spread. A `note` says why a work on a peer, or a peer, has no figures, or not
    /// of all rounds.
    ///
    /// A figure is of all rounds, which go around all works, so all is printed at the end. Ctrl-C ends
    /// the measuring, and what was measured until then is printed.
    #[arg(long)]
    json: bool,
    /// Draw charts, as SVG and PNG, and write the tables, as Markdown, into this directory
    #[arg(long, value_name = "DIR")]
    chart: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct SpanArgs {
    /// Let server and client share one core, this one; or the server run on the first and the client
    /// on the second of two, as in 0,1, and on both the server whose methods compute
    #[arg(long, value_name = "CORE[,CORE]", num_args = 0..=1, default_missing_value = "0")]
    pin: Option<Cores>,
    /// How long a measurement lasts, in seconds, or the little longer that what it does once takes, such
    /// as to move 1 GiB; a warm-up of a quarter of it comes before
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Output {
    /// Before anything is measured.
    fn prepare(&self) -> Result<()> {
        process::catch_interrupts()?;
        match &self.chart {
            Some(dir) => report::prepare(dir).context("--chart"),
            None => Ok(()),
        }
    }
}

impl SpanArgs {
    fn span(&self) -> Result<Span> {
        if !(0.01..=600.0).contains(&self.seconds) {
            bail!("--seconds {} is not between 0.01 and 600", self.seconds);
        }
        if let Some(cores) = self.pin {
            for core in [cores.server, cores.client] {
                if !process::may_run_on(core)? {
                    bail!("--pin {cores}: this process may not run on a core {core}");
                }
            }
        }
        Ok(Span {
            pin: self.pin,
            measured: Duration::from_secs_f64(self.seconds),
        })
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // without a backtrace, whatever the environment asks for: it is about what was given
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    process::raise_open_files()?;
    match Cli::parse().command {
        Command::All {
            work,
            choice,
            output,
        } => {
            let mut works = Vec::new();
            for work in work {
                if !works.contains(&work) {
                    works.push(work);
                }
            }
            if works.is_empty() {
                works.extend(Work::ALL);
            }
            output.prepare()?;
            let measured = choice.measure(works)?;
            report::show(&measured, output.json)?;
            measured.uninterrupted()?;
            if let Some(dir) = &output.chart {
                chart::works(&measured, dir, "works")?;
                report::write(&measured, dir, "works")?;
            }
            measured.complete()?;
        }
        Command::Scale { choice, output } => {
            output.prepare()?;
            let measured = choice.measure(Work::scale())?;
            report::show(&measured, output.json)?;
            measured.uninterrupted()?;
            if let Some(dir) = &output.chart {
                chart::scale(&measured, dir)?;
                report::write(&measured, dir, "scale")?;
            }
            measured.complete()?;
        }
        Command::Docs { dir, choice } => page::make(&dir, &choice)?,
        Command::List => report::print(&known())?,
        Command::Serve {
            peer,
            work,
            threads,
        } => process::serve(&peer, work, threads)?,
        Command::Relay { address, delay_ms } => {
            process::relay(&address, Duration::from_millis(delay_ms))?;
        }
        Command::Repeat { work, times } => process::repeat(work, times.get())?,
        Command::Measure { peer, work, span } => process::measure(&peer, work, &span.span()?)?,
    }
    Ok(())
}

impl Choice {
    fn measure(&self, works: Vec<Work>) -> Result<measure::Measured> {
        let mut peers = peers::all();
        peers.retain(|entry| {
            self.peer.is_empty() || self.peer.iter().any(|name| name == entry.name)
        });
        Run {
            works,
            peers,
            rounds: self.rounds,
            span: self.span.span()?,
        }
        .measure()
    }
}

/// The works and the peers.
fn known() -> String {
    let mut text = String::from("Works (a number may be another, as in pipe_256):\n");
    for work in Work::ALL {
        text += &format!("  {:<12}  {}\n", work.to_string(), work.about());
    }
    for (kind, about) in Work::SCALED {
        text += &format!("  {:<12}  {about}\n", format!("{kind}_N"));
    }
    text += &format!("Largest numbers: {}\n", Work::largest());
    text += "Peers:\n";
    for entry in peers::all() {
        text += &format!("  {:<12}  {}\n", entry.name, entry.about);
    }
    for (name, why) in peers::LEFT_OUT {
        text += &format!("  {name:<12}  left out: {why}\n");
    }
    text += &format!("Versions: {}\n", report::VERSIONS);
    text
}
