//! A run: every work on every peer, round after round.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    peers::Entry,
    process,
    works::{Sample, Work},
};

/// The longest that one measurement may take beside the time it is to last.
const PATIENCE: Duration = Duration::from_secs(120);

/// The files that a process has open beside its connections, and some.
const OTHER_FILES: u64 = 64;

/// How a measurement is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) pin: Option<Cores>,
    pub(crate) measured: Duration,
}

impl Span {
    pub(crate) fn warm_up(&self) -> Duration {
        self.measured / 4
    }
}

/// The core that the server runs on, and the client's, which may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) client: usize,
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, client } = self;
        if server == client {
            return write!(f, "{server}");
        }
        write!(f, "{server},{client}")
    }
}

impl FromStr for Cores {
    type Err = &'static str;

    fn from_str(cores: &str) -> Result<Self, Self::Err> {
        let (server, client) = cores.split_once(',').unwrap_or((cores, cores));
        match (server.parse(), client.parse()) {
            (Ok(server), Ok(client)) => Ok(Self { server, client }),
            _ => Err("one core, as in 0, or the server's and the client's, as in 0,1"),
        }
    }
}

/// What to measure.
pub(crate) struct Run {
    pub(crate) works: Vec<Work>,
    pub(crate) peers: Vec<Entry>,
    pub(crate) rounds: u32,
    pub(crate) span: Span,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) span: Span,
    pub(crate) rounds: u32,
    pub(crate) works: Vec<Work>,
    pub(crate) peers: Vec<&'static str>,
    pub(crate) interrupted_in_round: Option<u32>,
    figures: BTreeMap<(usize, usize), Vec<Figure>>,
    notes: BTreeMap<(usize, usize), Note>,
}

/// Why there are no figures, or fewer than rounds.
#[derive(Debug)]
pub(crate) enum Note {
    LeftOut(String),
    /// So many of so many rounds, and why the last of them.
    Failed(u32, u32, String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::LeftOut(why) => f.write_str(why),
            Note::Failed(failed, rounds, why) => {
                write!(f, "{failed} of {rounds} round(s) failed: {why}")
            }
        }
    }
}

/// A metric with its value in each round that did not fail.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) metric: String,
    pub(crate) unit: String,
    values: BTreeMap<u32, f64>,
}

impl Figure {
    pub(crate) fn median(&self) -> f64 {
        median(self.values.values().copied())
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.values.values().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn highest(&self) -> f64 {
        let values = self.values.values().copied();
        values.fold(f64::NEG_INFINITY, f64::max)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.values.len()
    }

    /// The median of the ratios that each round has by itself: a machine that is slow for a while is so
    /// for both. Of the medians where no round has both.
    pub(crate) fn ratio(&self, to: &Figure) -> f64 {
        let rounds = self.values.iter();
        let ratios: Vec<f64> = rounds
            .filter_map(|(round, value)| Some(value / to.values.get(round)?))
            .collect();
        match ratios.is_empty() {
            true => self.median() / to.median(),
            false => median(ratios.into_iter()),
        }
    }

    /// Whether more of it is better; less is of all others.
    pub(crate) fn is_rate(&self) -> bool {
        self.unit.ends_with("/s") || self.unit == "%"
    }

    /// Whether the median is.
    pub(crate) fn is_better(&self, than: &Figure) -> bool {
        let (ours, theirs) = (self.median(), than.median());
        if self.is_rate() {
            ours > theirs
        } else {
            ours < theirs
        }
    }

    /// How many times as good it is as another, by their [`ratio`](Self::ratio).
    pub(crate) fn times_better(&self, than: &Figure) -> f64 {
        let ratio = self.ratio(than);
        if self.is_rate() { ratio } else { 1.0 / ratio }
    }
}

/// The middle one, of at least one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values[middle];
    }
    f64::midpoint(values[middle - 1], values[middle])
}

impl Run {
    /// Measures everything, or what can be before an interrupt; what fails is noted and does not end the
    /// run.
    pub(crate) fn measure(self) -> Result<Measured> {
        let mut measured = Measured {
            span: self.span,
            rounds: self.rounds,
            works: self.works,
            peers: self.peers.iter().map(|entry| entry.name).collect(),
            interrupted_in_round: None,
            figures: BTreeMap::new(),
            notes: BTreeMap::new(),
        };
        let steps = u64::from(self.rounds) * (measured.works.len() * self.peers.len()) as u64;
        let progress = ProgressBar::new(steps);
        progress.set_style(ProgressStyle::with_template(
            "{bar:30} {pos}/{len}  {msg}  {elapsed} of about {duration}",
        )?);
        'measuring: for round in 1..=self.rounds {
            for (at_work, work) in measured.works.clone().into_iter().enumerate() {
                for (at_peer, peer) in self.peers.iter().enumerate() {
                    progress.set_message(format!(
                        "{work}, {}, round {round} of {}",
                        peer.name, self.rounds
                    ));
                    measured.once((at_work, at_peer), work, peer, round);
                    if process::is_interrupted() {
                        measured.interrupted_in_round = Some(round);
                        break 'measuring;
                    }
                    progress.inc(1);
                }
            }
        }
        progress.finish_and_clear();
        Ok(measured)
    }
}

impl Measured {
    fn once(&mut self, at: (usize, usize), work: Work, peer: &Entry, round: u32) {
        if let Err(why) = (peer.supports)(work) {
            let why = format!("not supported: {why}");
            self.notes.insert(at, Note::LeftOut(why));
            return;
        }
        match (
            process::open_files(),
            work.connections() as u64 + OTHER_FILES,
        ) {
            (Ok(most), needed) if most < needed => {
                let why = format!("it takes {needed} open files, and `ulimit -n` is {most}");
                self.notes.insert(at, Note::LeftOut(why));
                return;
            }
            _ => {}
        }
        let at_most = self.span.measured * 2 + PATIENCE;
        match process::run_measurement::<Vec<Sample>>(peer.name, work, &self.span, at_most) {
            Ok(samples) => {
                for sample in samples {
                    self.add(at, sample, round);
                }
            }
            // it was ended, and did not fail
            Err(_) if process::is_interrupted() => {}
            Err(error) => {
                let failed = self.failures(work, peer.name) + 1;
                let note = Note::Failed(failed, self.rounds, format!("{error:#}"));
                self.notes.insert(at, note);
            }
        }
    }

    fn add(&mut self, at: (usize, usize), sample: Sample, round: u32) {
        let Sample {
            metric,
            value,
            unit,
        } = sample;
        let figures = self.figures.entry(at).or_default();
        match figures.iter_mut().find(|figure| figure.metric == metric) {
            Some(figure) => {
                figure.values.insert(round, value);
            }
            None => figures.push(Figure {
                metric,
                unit,
                values: BTreeMap::from([(round, value)]),
            }),
        }
    }

    /// The figures of one work on one peer, in the order in which they were given.
    pub(crate) fn figures(&self, work: Work, peer: &str) -> &[Figure] {
        self.at(work, peer)
            .and_then(|at| self.figures.get(&at))
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn figure(&self, work: Work, peer: &str, metric: &str) -> Option<&Figure> {
        self.figures(work, peer)
            .iter()
            .find(|figure| figure.metric == metric)
    }

    /// Fails where it was interrupted.
    pub(crate) fn uninterrupted(&self) -> Result<()> {
        match self.interrupted_in_round {
            None => Ok(()),
            Some(round) => bail!(
                "interrupted in round {round} of {}: the figures are of what was measured before",
                self.rounds
            ),
        }
    }

    /// Fails where a measurement did.
    pub(crate) fn complete(&self) -> Result<()> {
        let failed = self.notes.values().filter_map(|note| match note {
            Note::Failed(failed, ..) => Some(failed),
            Note::LeftOut(_) => None,
        });
        match failed.sum::<u32>() {
            0 => Ok(()),
            n => bail!("{n} of the measurements failed; the notes say why"),
        }
    }

    /// In how many rounds it failed.
    pub(crate) fn failures(&self, work: Work, peer: &str) -> u32 {
        match self.note(work, peer) {
            Some(Note::Failed(failed, ..)) => *failed,
            _ => 0,
        }
    }

    pub(crate) fn note(&self, work: Work, peer: &str) -> Option<&Note> {
        self.at(work, peer).and_then(|at| self.notes.get(&at))
    }

    fn at(&self, work: Work, peer: &str) -> Option<(usize, usize)> {
        let work = self.works.iter().position(|known| *known == work)?;
        let peer = self.peers.iter().position(|known| *known == peer)?;
        Some((work, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: &str, values: &[(u32, f64)]) -> Figure {
        Figure {
            metric: "rate".into(),
            unit: unit.into(),
            values: values.iter().copied().collect(),
        }
    }

    #[test]
    fn a_ratio_is_that_of_rounds_not_of_medians() {
        // the machine is slow in some rounds
        let floor = figure("calls/s", &[(1, 6.0), (2, 4.0), (3, 4.0)]);
        let ours = figure("calls/s", &[(1, 3.0), (2, 2.0), (3, 3.0)]);
        assert_eq!((ours.median(), floor.median()), (3.0, 4.0));
        assert_eq!(ours.ratio(&floor), 0.5);
        assert_eq!((ours.lowest(), ours.highest()), (2.0, 3.0));
        // a round that failed has none
        let failed = figure("calls/s", &[(3, 1.0), (2, 1.0)]);
        assert_eq!(failed.ratio(&floor), 0.25);
        assert_eq!(figure("calls/s", &[(4, 1.0)]).ratio(&floor), 0.25);
        // less is better but of rates
        assert_eq!(ours.times_better(&floor), 0.5);
        let (fast, slow) = (figure("µs", &[(1, 2.0)]), figure("µs", &[(1, 3.0)]));
        assert_eq!(fast.times_better(&slow), 1.5);
        assert!(fast.is_better(&slow) && !slow.is_better(&fast) && !fast.is_better(&fast));
    }
}
