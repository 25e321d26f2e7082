//! The report: tables of medians, spread and ratios, or one JSON object a line.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _, stderr, stdout},
    path::Path,
};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use crate::{
    measure::{Figure, Measured},
    peers,
    works::Work,
};

/// What ratios relate to.
const FLOOR: &str = "rawmux";
/// hbi on the ground of the others.
const OVER_TCP: &str = "hbi-tcp";
/// The metrics that each side's share of is left to the JSON.
const ONE_SIDE: [&str; 2] = ["CPU, client", "CPU, server"];

/// How tables are written.
#[derive(Clone, Copy)]
struct Form {
    preset: &'static str,
    /// What stands between a metric and its unit.
    between: &'static str,
    heading: &'static str,
    note: &'static str,
}

const TERMINAL: Form = Form {
    preset: presets::UTF8_FULL_CONDENSED,
    between: "\n",
    heading: "",
    note: "  ",
};

const MARKDOWN: Form = Form {
    preset: presets::ASCII_MARKDOWN,
    between: ", ",
    heading: "## ",
    note: "- ",
};

/// Prints tables to standard output; with `json` objects there, and the tables to standard error.
pub(crate) fn show(measured: &Measured, json: bool) -> Result<()> {
    let text = report(measured, TERMINAL)?;
    if json {
        print_json(measured)?;
        stderr().write_all(text.as_bytes())?;
    } else {
        print(&text)?;
    }
    Ok(())
}

/// Prints to standard output; a reader that has seen enough is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

/// Writes the tables as Markdown, below the chart of the same name.
pub(crate) fn write(measured: &Measured, dir: &Path, name: &str) -> Result<()> {
    let text = report(measured, MARKDOWN)?;
    let file = dir.join(format!("{name}.md"));
    std::fs::write(&file, format!("![{name}]({name}.svg)\n\n{text}"))
        .with_context(|| format!("writing {}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}

fn report(measured: &Measured, form: Form) -> Result<String> {
    let mut text = ground(measured);
    let Form {
        heading,
        note: bullet,
        ..
    } = form;
    for work in &measured.works {
        let about = work.about();
        writeln!(text, "\n{heading}{work}: {about}\n")?;
        writeln!(text, "{}\n", table(measured, *work, form))?;
        for peer in &measured.peers {
            if let Some(note) = measured.note(*work, peer) {
                writeln!(text, "{bullet}{peer}: {note}")?;
            }
        }
    }
    writeln!(text, "\n{}", better_than_hbi(measured))?;
    for (name, why) in peers::LEFT_OUT {
        writeln!(text, "{name}: left out, {why}")?;
    }
    Ok(text)
}

/// Where and how it was measured.
pub(crate) fn ground(measured: &Measured) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let pinned = match measured.span.pin {
        Some(core) => format!("server and client pinned to core {core}"),
        None => "not pinned".into(),
    };
    format!(
        "{model}, {cores} core(s), {}; {pinned}; medians of {} round(s) of {} s\n",
        std::env::consts::OS,
        measured.rounds,
        measured.span.measured.as_secs_f64(),
    )
}

fn table(measured: &Measured, work: Work, form: Form) -> Table {
    let mut metrics: Vec<&str> = Vec::new();
    for peer in &measured.peers {
        for figure in measured.figures(work, peer) {
            let metric = figure.metric.as_str();
            if metric != work.metric() && !ONE_SIDE.contains(&metric) && !metrics.contains(&metric)
            {
                metrics.push(metric);
            }
        }
    }
    let mut table = Table::new();
    table
        .load_preset(form.preset)
        .set_content_arrangement(ContentArrangement::Disabled);
    let mut headings = vec!["peer".to_owned()];
    let unit = |metric: &str| {
        let figure = measured
            .peers
            .iter()
            .find_map(|peer| measured.figure(work, peer, metric));
        figure.map_or(String::new(), |figure| {
            format!("{}{}", form.between, figure.unit)
        })
    };
    headings.push(format!("{}{}", work.metric(), unit(work.metric())));
    headings.extend(["spread".into(), format!("ratio to {FLOOR}")]);
    headings.extend(
        metrics
            .iter()
            .map(|metric| format!("{metric}{}", unit(metric))),
    );
    table.set_header(headings);
    let floor = measured
        .figure(work, FLOOR, work.metric())
        .map(Figure::median);
    for peer in &measured.peers {
        let Some(figure) = measured.figure(work, peer, work.metric()) else {
            continue;
        };
        let mut row = vec![(*peer).to_owned(), amount(figure.median())];
        row.push(format!(
            "{} to {}",
            amount(figure.lowest()),
            amount(figure.highest())
        ));
        row.push(floor.map_or("–".into(), |floor| {
            format!("{:.2}", figure.median() / floor)
        }));
        for metric in &metrics {
            let figure = measured.figure(work, peer, metric);
            row.push(figure.map_or("–".into(), |figure| amount(figure.median())));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A line for each work at which something other than a floor is better than hbi: over TCP, as the
/// others are, or else over the best of what was measured.
pub(crate) fn better_than_hbi(measured: &Measured) -> String {
    let over_tcp = measured.peers.contains(&OVER_TCP);
    let is_hbi = |peer: &str| peer.starts_with("hbi");
    let is_ours = |peer: &str| {
        if over_tcp {
            peer == OVER_TCP
        } else {
            is_hbi(peer)
        }
    };
    let is_floor = |peer: &str| peer.starts_with("raw");
    let (ours, others): (Vec<&str>, Vec<&str>) = measured
        .peers
        .iter()
        .filter(|peer| !is_floor(peer) && (is_ours(peer) || !is_hbi(peer)))
        .partition(|peer| is_ours(peer));
    if ours.is_empty() || others.is_empty() {
        return "No other library was measured beside hbi in this run.".into();
    }
    let mut text = String::new();
    for work in &measured.works {
        let figure = |peer: &&str| measured.figure(*work, peer, work.metric());
        let ours = ours.iter().filter_map(figure);
        let Some(best) = ours.reduce(|best, figure| {
            if is_better(figure, best) {
                figure
            } else {
                best
            }
        }) else {
            continue;
        };
        for other in &others {
            let Some(theirs) = figure(other).filter(|theirs| is_better(theirs, best)) else {
                continue;
            };
            let (theirs, best) = (amount(theirs.median()), amount(best.median()));
            let _ = writeln!(
                text,
                "Better than hbi at {work}, {}: {other}, {theirs} against {best}.",
                work.metric()
            );
        }
    }
    if text.is_empty() {
        return "No other library that was measured is better than hbi at any of these works, by the first \
                figure of each."
            .into();
    }
    text
}

fn is_better(figure: &Figure, than: &Figure) -> bool {
    let (figure_median, than_median) = (figure.median(), than.median());
    if figure.is_rate() {
        figure_median > than_median
    } else {
        figure_median < than_median
    }
}

fn print_json(measured: &Measured) -> Result<()> {
    let mut text = String::new();
    for work in &measured.works {
        for peer in &measured.peers {
            for figure in measured.figures(*work, peer) {
                let object = json!({
                    "work": work.to_string(), "peer": peer, "metric": figure.metric,
                    "value": figure.median(), "unit": figure.unit, "rounds": figure.rounds(),
                    "lowest": figure.lowest(), "highest": figure.highest(),
                    "pinned": measured.span.pin.is_some(),
                });
                writeln!(text, "{object}")?;
            }
            if let Some(note) = measured.note(*work, peer) {
                let object = json!({
                    "work": work.to_string(), "peer": peer, "note": note,
                });
                writeln!(text, "{object}")?;
            }
        }
    }
    print(&text)
}

/// Three digits that count, with M and k.
pub(crate) fn amount(value: f64) -> String {
    let (value, suffix) = match value {
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}{suffix}")
}
