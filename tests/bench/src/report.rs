//! The report: tables of medians, spread and ratios, or one JSON object a line.

use std::{
    fmt::{self, Write as _},
    fs,
    io::{ErrorKind, Write as _, stderr, stdout},
    path::Path,
};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use tempfile::NamedTempFile;

use crate::{
    json,
    measure::{Cores, Figure, Measured},
    peers, process,
    works::Work,
};

/// What is measured, as the lock file has it.
pub(crate) const VERSIONS: &str = env!("BENCH_VERSIONS");
/// What is more than so many times as good as a floor beats it.
pub(crate) const BEATS_FLOOR: f64 = 1.1;

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
        print(&json::lines(measured)?)?;
        tell(text.trim_end());
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

/// Prints a line to standard error; where that cannot be written to, nothing is lost but the line.
pub(crate) fn tell(line: impl fmt::Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Makes a directory, and tries to write into it: what cannot be written shall show before anything is
/// measured.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making the directory {}", dir.display()))?;
    NamedTempFile::new_in(dir)
        .and_then(|mut file| file.write_all(b"tried\n"))
        .with_context(|| format!("writing into the directory {}", dir.display()))
}

/// Writes the tables as Markdown, below the chart of the same name.
pub(crate) fn write(measured: &Measured, dir: &Path, name: &str) -> Result<()> {
    let text = report(measured, MARKDOWN)?;
    let file = dir.join(format!("{name}.md"));
    fs::write(&file, format!("![{name}]({name}.svg)\n\n{text}"))
        .with_context(|| format!("writing {}", file.display()))?;
    tell(format_args!("wrote {}", file.display()));
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
    write!(text, "\n{}", remarks(measured)?)?;
    Ok(text)
}

/// What a reader shall not overlook, a line each.
pub(crate) fn remarks(measured: &Measured) -> Result<String> {
    let mut text = better_than_hbi(measured)?;
    text += &better_than_floors(measured)?;
    for (name, why) in peers::LEFT_OUT {
        writeln!(text, "{name}: left out, {why}")?;
    }
    Ok(text)
}

/// Where and how it was measured.
pub(crate) fn ground(measured: &Measured) -> String {
    format!("{}; {}\n", machine(), how(measured))
}

/// What it was measured on.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown processor");
    format!(
        "{}, {} core(s), {} {}, {}",
        model.trim_start_matches([' ', '\t', ':']),
        process::cores(),
        std::env::consts::OS,
        read("/proc/sys/kernel/osrelease").trim(),
        env!("BENCH_RUSTC"),
    )
}

/// When and how it was measured.
pub(crate) fn how(measured: &Measured) -> String {
    let pinned = match measured.span.pin {
        Some(Cores { server, client }) if server == client => {
            format!("server and client on core {server}")
        }
        Some(Cores { server, client }) => {
            let computes = measured.works.iter().any(|work| work.computes());
            let both = if computes {
                " (where methods compute on both)"
            } else {
                ""
            };
            format!("the server on core {server}{both}, the client on core {client}")
        }
        None => "not pinned".into(),
    };
    let mut text = format!(
        "{}; {pinned}; medians of {} round(s) of {} s",
        today(),
        measured.rounds,
        measured.span.measured.as_secs_f64(),
    );
    if let Some(round) = measured.interrupted_in_round {
        text += &format!("; interrupted in round {round}");
    }
    if cfg!(debug_assertions) {
        text += "; NOT OPTIMISED, so no figure says anything about speed";
    }
    if cfg!(feature = "allocations") {
        text += "; allocations are counted, which takes time";
    }
    text
}

pub(crate) fn today() -> time::Date {
    time::OffsetDateTime::now_utc().date()
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
    let floor = measured.figure(work, FLOOR, work.metric());
    for peer in &measured.peers {
        let Some(figure) = measured.figure(work, peer, work.metric()) else {
            continue;
        };
        let failed = failures(measured, work, peer);
        let mut row = vec![format!("{peer}{failed}"), shown(figure)];
        row.push(format!(
            "{} to {}",
            amount(figure.lowest()),
            amount(figure.highest())
        ));
        row.push(floor.map_or("–".into(), |floor| format!("{:.2}", figure.ratio(floor))));
        for metric in &metrics {
            let figure = measured.figure(work, peer, metric);
            row.push(figure.map_or("–".into(), shown));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What stands behind a figure that is not of all rounds.
pub(crate) fn failures(measured: &Measured, work: Work, peer: &str) -> String {
    match measured.failures(work, peer) {
        0 => String::new(),
        failed => format!(" ({failed} of {} rounds failed)", measured.rounds),
    }
}

/// A line for each work at which a library is better than hbi by any figure of the table: hbi over TCP, as
/// the others are, or else the best of what was measured.
fn better_than_hbi(measured: &Measured) -> Result<String> {
    let over_tcp = measured.peers.contains(&OVER_TCP);
    let is_hbi = |peer: &str| peer.starts_with("hbi");
    let is_ours = |peer: &str| {
        if over_tcp {
            peer == OVER_TCP
        } else {
            is_hbi(peer)
        }
    };
    let (ours, others): (Vec<&str>, Vec<&str>) = measured
        .peers
        .iter()
        .filter(|peer| !is_floor(peer) && (is_ours(peer) || !is_hbi(peer)))
        .partition(|peer| is_ours(peer));
    if ours.is_empty() {
        return Ok(String::new());
    }
    if others.is_empty() {
        return Ok("No other library was measured beside hbi in this run.\n".into());
    }
    let mut text = String::new();
    for work in &measured.works {
        for peer in &ours {
            let failed = measured.failures(*work, peer);
            let fewer = |other: &&&str| {
                !measured.figures(*work, other).is_empty()
                    && measured.failures(*work, other) < failed
            };
            let better: Vec<&str> = others.iter().filter(fewer).copied().collect();
            if !better.is_empty() {
                let (failed, better) = (failures(measured, *work, peer), better.join(", "));
                writeln!(
                    text,
                    "{peer} is worse at {work}{failed} than {better}, which did not fail as often."
                )?;
            }
        }
        let mut better = Vec::new();
        for other in &others {
            let figures = measured.figures(*work, other).iter();
            let better_in: Vec<String> = figures
                .filter(|figure| !ONE_SIDE.contains(&figure.metric.as_str()))
                .filter_map(|theirs| {
                    let ours = ours
                        .iter()
                        .filter_map(|peer| measured.figure(*work, peer, &theirs.metric));
                    let best = ours.reduce(
                        |best, figure| {
                            if figure.is_better(best) { figure } else { best }
                        },
                    )?;
                    theirs.is_better(best).then(|| against(theirs, best))
                })
                .collect();
            if !better_in.is_empty() {
                better.push(format!("{other} by {}", better_in.join(", by ")));
            }
        }
        if !better.is_empty() {
            writeln!(text, "Better than hbi at {work}: {}.", better.join("; "))?;
        }
    }
    if text.is_empty() {
        return Ok(
            "No other library that was measured is better than hbi at any of these works, by any figure of \
             their tables.\n"
                .into(),
        );
    }
    Ok(text)
}

/// A line for each work at which something beats its floor.
fn better_than_floors(measured: &Measured) -> Result<String> {
    let mut text = String::new();
    for work in &measured.works {
        // of calls that depend on each other it is the point to make fewer round trips than by hand
        if matches!(work, Work::Chain(_)) {
            continue;
        }
        let figure = |peer: &str| measured.figure(*work, peer, work.metric());
        let mut better = Vec::new();
        for peer in &measured.peers {
            let floor = floors(peer)
                .iter()
                .find_map(|floor| Some((floor, figure(floor)?)));
            let (Some((floor, best)), Some(figure)) = (floor, figure(peer)) else {
                continue;
            };
            if figure.times_better(best) > BEATS_FLOOR {
                better.push(format!(
                    "{peer} is better than {floor} by {}",
                    against(figure, best)
                ));
            }
        }
        if !better.is_empty() {
            writeln!(text, "Floor beaten at {work}: {}.", better.join("; "))?;
        }
    }
    if !text.is_empty() {
        text += "What is meant for a floor was more than a tenth worse there than what beat it, so that the \
                 ratio says nothing.\n";
    }
    Ok(text)
}

fn is_floor(peer: &str) -> bool {
    peer.starts_with("raw")
}

/// What stands for the machine's best on the same ground; where it cannot do a work the next does.
fn floors(peer: &str) -> &'static [&'static str] {
    match peer.ends_with("-unix") {
        true => &["rawmux-unix"],
        false => &["raw", FLOOR],
    }
}

/// The metric, and both medians.
fn against(figure: &Figure, than: &Figure) -> String {
    let (metric, unit) = (&figure.metric, &figure.unit);
    let (figure, than) = (amount(figure.median()), amount(than.median()));
    format!("{metric} ({figure} against {than} {unit})")
}

/// The median; more than all is what noise makes of it.
pub(crate) fn shown(figure: &Figure) -> String {
    let median = figure.median();
    let flag = if figure.unit == "%" && median > 100.0 {
        " (over 100: noise)"
    } else {
        ""
    };
    format!("{}{flag}", amount(median))
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
