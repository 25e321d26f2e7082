//! The page `speed.md`: what is written by hand stays, what stands between marks is made anew.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    Choice, chart,
    measure::{Figure, Measured},
    report::{self, amount, ground},
    works::Work,
};

/// The works whose allocations are counted.
const COUNTED: [Work; 6] = [
    Work::Seq,
    Work::Pipe(64),
    Work::Echo,
    Work::Chain(8),
    Work::Script(1),
    Work::Script(3),
];

/// What `scale` is measured of: more peers take more time than they tell.
const SCALED: [&str; 2] = ["rawmux", "hbi-tcp"];

/// Measures what the page shows, and writes it into its places there.
pub(crate) fn make(dir: &Path, choice: &Choice) -> Result<()> {
    let mut page = Page::read(dir)?;
    let charts = dir.join("speed");
    fs::create_dir_all(&charts).with_context(|| format!("making {}", charts.display()))?;
    let mut pinned = choice.clone();
    pinned.span.pin.get_or_insert(0);
    let mut unpinned = choice.clone();
    unpinned.span.pin = None;
    if cfg!(feature = "allocations") {
        let measured = pinned.measure(COUNTED.to_vec())?;
        page.put("allocations", &allocations(&measured)?)?;
        return page.write();
    }
    for (name, choice) in [("pinned", &pinned), ("unpinned", &unpinned)] {
        let measured = choice.measure(Work::ALL.to_vec())?;
        chart::works(&measured, &charts, name)?;
        report::write(&measured, &charts, name)?;
        page.put(&format!("goals {name}"), &goals(&measured)?)?;
        page.put(name, &works(&measured)?)?;
    }
    pinned.peer = SCALED.map(String::from).into();
    let measured = pinned.measure(Work::scale())?;
    chart::scale(&measured, &charts)?;
    report::write(&measured, &charts, "scale")?;
    page.put("scale", &cpu(&measured)?)?;
    page.write()
}

/// The page, and the places in it: from `<!-- figures: NAME -->` to the next `<!-- end -->`.
struct Page {
    path: std::path::PathBuf,
    text: String,
}

impl Page {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("speed.md");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("reading {}, whose figures are to be made", path.display()))?;
        Ok(Self { path, text })
    }

    fn put(&mut self, name: &str, figures: &str) -> Result<()> {
        let (begin, end) = (format!("<!-- figures: {name} -->\n"), "<!-- end -->");
        let place = self.text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(end)?;
            Some(format!(
                "{before}{begin}\n{}\n\n{end}{after}",
                figures.trim()
            ))
        });
        self.text = place.with_context(|| {
            format!(
                "{} has no place `{}` that ends with `{end}`",
                self.path.display(),
                begin.trim()
            )
        })?;
        Ok(())
    }

    fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.text)?;
        eprintln!("wrote {}", self.path.display());
        Ok(())
    }
}

/// Medians of all peers, then what they take of the processor, then where another is better.
fn works(measured: &Measured) -> Result<String> {
    let mut text = medians(measured, "Median", |work, peer| {
        measured.figure(work, peer, work.metric())
    })?;
    let better = report::better_than_hbi(measured);
    write!(
        text,
        "\n{}\n\n{}",
        better.trim().replace('\n', "\n\n"),
        cpu(measured)?
    )?;
    Ok(text)
}

fn cpu(measured: &Measured) -> Result<String> {
    medians(measured, "CPU of both sides", |work, peer| {
        measured.figure(work, peer, "CPU, both")
    })
}

/// A row for each work, a column for each peer that has figures.
fn medians<'a>(
    measured: &'a Measured,
    heading: &str,
    figure: impl Fn(Work, &str) -> Option<&'a Figure>,
) -> Result<String> {
    let mut peers = measured.peers.clone();
    peers.retain(|peer| {
        measured
            .works
            .iter()
            .any(|work| figure(*work, peer).is_some())
    });
    let mut text = format!(
        "{}\n| {heading} | {} |\n",
        ground(measured),
        peers.join(" | ")
    );
    writeln!(text, "|---|{}", "--:|".repeat(peers.len()))?;
    for work in &measured.works {
        let figures: Vec<_> = peers.iter().map(|peer| figure(*work, peer)).collect();
        let Some(known) = figures.iter().flatten().next() else {
            continue;
        };
        write!(text, "| {work}: {}, {} |", known.metric, known.unit)?;
        for (at, figure) in figures.into_iter().enumerate() {
            let median = figure.map(|figure| amount(figure.median()));
            let failed = || match measured.failed(*work, peers[at]) {
                true => "failed".to_owned(),
                false => "–".to_owned(),
            };
            write!(text, " {} |", median.unwrap_or_else(failed))?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// What is wanted of a figure.
enum Goal {
    /// At most so many times the floor's.
    MostOf(f64, &'static str),
    /// At least so many times the floor's.
    LeastOf(f64, &'static str),
    Most(f64),
    Least(f64),
    /// At most so much more than that of one call, 64 in flight.
    MostMore(f64),
}

/// What hbi is to reach; the figures of the processor's time where they are steady, pinned.
fn goals(measured: &Measured) -> Result<String> {
    use Goal::{Least, LeastOf, Most, MostMore, MostOf};
    const CPU: &str = "CPU, both";
    let all = [
        (Work::Seq, "p50", MostOf(1.15, "rawmux")),
        (Work::Pipe(64), "rate", LeastOf(0.6, "rawmux")),
        (Work::Pipe(1024), "rate", LeastOf(0.6, "rawmux")),
        (Work::Echo, "rate", LeastOf(0.6, "rawmux")),
        (Work::Pipe(64), CPU, Most(0.8)),
        (Work::BulkDown, "rate", LeastOf(0.9, "raw")),
        (Work::BulkUp, "rate", LeastOf(0.9, "raw")),
        (Work::Hol, "p99", MostOf(1.5, "rawmux")),
        (Work::Hol, "bulk rate kept", Least(90.0)),
        // a round trip is 20 ms, two are 40
        (Work::Chain(8), "time", Most(30.0)),
        (Work::Script(3), CPU, MostMore(5.0)),
        (Work::Idle(2000), "server memory", Most(6.0)),
    ];
    let mut text =
        "| goal | peer | figure | against | reached |\n|---|---|--:|--:|---|\n".to_owned();
    for (work, metric, goal) in all {
        if metric == CPU && measured.span.pin.is_none() {
            continue;
        }
        for peer in ["hbi-tcp", "hbi-unix"] {
            let missing = |of: &str| {
                format!("| {work}, {metric} | {peer} | – | {of} was not measured | – |\n")
            };
            let Some(figure) = measured.figure(work, peer, metric) else {
                text += &missing(peer);
                continue;
            };
            let ours = figure.median();
            let floor = |floor: &str| match (floor, peer) {
                // the loops by hand are over TCP only
                (_, "hbi-unix") => "rawmux-unix".to_owned(),
                (floor, _) => floor.to_owned(),
            };
            let median = |work, peer: &str| measured.figure(work, peer, metric).map(Figure::median);
            let (wanted, against, reached) = match &goal {
                MostOf(ratio, name) | LeastOf(ratio, name) => {
                    let name = floor(name);
                    let Some(of) = median(work, &name) else {
                        text += &missing(&name);
                        continue;
                    };
                    let share = ours / of;
                    let most = matches!(goal, MostOf(..));
                    let reached = if most {
                        share <= *ratio
                    } else {
                        share >= *ratio
                    };
                    let bound = if most { "at most" } else { "at least" };
                    let against = format!("{} of {name}: {share:.2}", amount(of));
                    (format!("{bound} {ratio} of {name}"), against, reached)
                }
                Most(most) => (format!("at most {most}"), String::new(), ours <= *most),
                Least(least) => (format!("at least {least}"), String::new(), ours >= *least),
                MostMore(most) => {
                    let Some(call) = median(Work::Pipe(64), peer) else {
                        text += &missing("one typed call");
                        continue;
                    };
                    let against = format!("{} of one typed call", amount(call));
                    (
                        format!("at most {most} more than one typed call"),
                        against,
                        ours - call <= *most,
                    )
                }
            };
            writeln!(
                text,
                "| {work}, {metric}: {wanted} | {peer} | {} {} | {against} | {} |",
                amount(ours),
                figure.unit,
                if reached { "yes" } else { "**no**" },
            )?;
        }
    }
    Ok(text)
}

/// How often each side allocates.
fn allocations(measured: &Measured) -> Result<String> {
    let mut text = String::new();
    for (side, metric) in [
        ("Allocations of the client", "allocations, client"),
        ("Allocations of the server", "allocations, server"),
    ] {
        let table = medians(measured, side, |work, peer| {
            measured.figure(work, peer, metric)
        })?;
        writeln!(text, "{table}")?;
    }
    Ok(text)
}
