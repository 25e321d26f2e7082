//! What was measured as JSON, one object a line.

use anyhow::Result;
use serde::Serialize;

use crate::{
    measure::Measured,
    peers, process,
    report::{VERSIONS, machine, today},
};

/// A line; `kind`, which says what it is, comes first.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    /// Where and how it was measured.
    Run {
        machine: String,
        cores: usize,
        versions: &'a str,
        date: String,
        rounds: u32,
        seconds: f64,
        server_core: Option<usize>,
        client_core: Option<usize>,
        optimised: bool,
        allocations_counted: bool,
        interrupted_in_round: Option<u32>,
    },
    /// A metric of a work on a peer: the median of so many rounds, and their spread.
    Figure {
        work: String,
        peer: &'a str,
        metric: &'a str,
        value: f64,
        unit: &'a str,
        rounds: usize,
        lowest: f64,
        highest: f64,
    },
    /// Why figures are missing: of a work on a peer, or of a peer altogether.
    Note {
        #[serde(skip_serializing_if = "Option::is_none")]
        work: Option<String>,
        peer: &'a str,
        note: String,
    },
}

/// The run, then work by work its figures and notes, then who was left out.
pub(crate) fn lines(measured: &Measured) -> Result<String> {
    let cores = measured.span.pin;
    let mut lines = vec![Line::Run {
        machine: machine(),
        cores: process::cores(),
        versions: VERSIONS,
        date: today().to_string(),
        rounds: measured.rounds,
        seconds: measured.span.measured.as_secs_f64(),
        server_core: cores.map(|cores| cores.server),
        client_core: cores.map(|cores| cores.client),
        optimised: !cfg!(debug_assertions),
        allocations_counted: cfg!(feature = "allocations"),
        interrupted_in_round: measured.interrupted_in_round,
    }];
    for work in &measured.works {
        for peer in &measured.peers {
            for figure in measured.figures(*work, peer) {
                lines.push(Line::Figure {
                    work: work.to_string(),
                    peer,
                    metric: &figure.metric,
                    value: rounded(figure.median()),
                    unit: &figure.unit,
                    rounds: figure.rounds(),
                    lowest: rounded(figure.lowest()),
                    highest: rounded(figure.highest()),
                });
            }
            if let Some(note) = measured.note(*work, peer) {
                lines.push(Line::Note {
                    work: Some(work.to_string()),
                    peer,
                    note: note.to_string(),
                });
            }
        }
    }
    for (peer, why) in peers::LEFT_OUT {
        lines.push(Line::Note {
            work: None,
            peer,
            note: format!("left out: {why}"),
        });
    }
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(&line)?;
        text.push('\n');
    }
    Ok(text)
}

/// To five digits that count.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}
