//! The page `speed.md`: what is written by hand stays, what stands between marks is made anew.

use std::{fmt::Write as _, fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Choice, chart,
    measure::{Cores, Figure, Measured},
    process,
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

/// The places for figures, each from `<!-- figures: NAME -->` to the next `<!-- end -->`.
const PLACES: [&str; 7] = [
    "made",
    "goals pinned",
    "goals two_cores",
    "pinned",
    "two_cores",
    "scale",
    "allocations",
];

/// The cores that are used where none are named.
const CORES: Cores = Cores {
    server: 0,
    client: 1,
};

/// Measures what the page shows, and writes it into its places there; then fails where a measurement did.
pub(crate) fn make(dir: &Path, choice: &Choice) -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "this build is not optimised, so its figures are none for a page; build it with --release"
    );
    let started = Instant::now();
    let mut page = Page::read(dir)?;
    let charts = dir.join("speed");
    report::prepare(&charts)?;
    let cores = choice.span.pin.unwrap_or(CORES);
    let on = |server, client| {
        let mut choice = choice.clone();
        choice.span.pin = Some(Cores { server, client });
        choice
    };
    let mut pinned = on(cores.server, cores.server);
    if cfg!(feature = "allocations") {
        let measured = pinned.measure(COUNTED.to_vec())?;
        return page.put("allocations", &allocations(&measured)?);
    }
    // what failed is told once all is written
    let mut complete = Vec::new();
    let mut half = |name: &str, choice: &Choice| {
        let measured = choice.measure(Work::ALL.to_vec())?;
        complete.push(measured.complete());
        chart::works(&measured, &charts, name)?;
        report::write(&measured, &charts, name)?;
        page.put(&format!("goals {name}"), &goals(&measured)?)?;
        page.put(name, &works(&measured)?)
    };
    half("pinned", &pinned)?;
    if cores.client != cores.server && process::may_run_on(cores.client)? {
        half("two_cores", &on(cores.server, cores.client))?;
    } else {
        let why = format!(
            "Left out: the program had core {} only when this page was made.",
            cores.server
        );
        report::tell(format_args!("two_cores: {why}"));
        page.put("goals two_cores", &why)?;
        page.put("two_cores", &why)?;
    }
    pinned.peer = SCALED.map(String::from).into();
    let measured = pinned.measure(Work::scale())?;
    complete.push(measured.complete());
    chart::scale(&measured, &charts)?;
    report::write(&measured, &charts, "scale")?;
    page.put("scale", &cpu(&measured)?)?;
    let minutes = started.elapsed().as_secs().div_ceil(60);
    let machine = report::machine();
    page.put(
        "made",
        &format!(
            "All but the allocations was made in {minutes} minute(s), on {machine}; {}.",
            report::VERSIONS
        ),
    )?;
    complete.into_iter().collect()
}

/// The page and its places.
struct Page {
    path: std::path::PathBuf,
    text: String,
}

impl Page {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("speed.md");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("reading {}, whose figures are to be made", path.display()))?;
        let page = Self { path, text };
        for name in PLACES {
            page.with(name, "")?;
        }
        Ok(page)
    }

    /// The text with other figures.
    fn with(&self, name: &str, figures: &str) -> Result<String> {
        let (begin, end) = (format!("<!-- figures: {name} -->\n"), "<!-- end -->");
        let place = self.text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(end)?;
            Some(format!(
                "{before}{begin}\n{}\n\n{end}{after}",
                figures.trim()
            ))
        });
        place.with_context(|| {
            format!(
                "{} has no place `{}` that ends with `{end}`",
                self.path.display(),
                begin.trim()
            )
        })
    }

    fn put(&mut self, name: &str, figures: &str) -> Result<()> {
        self.text = self.with(name, figures)?;
        fs::write(&self.path, &self.text)
            .with_context(|| format!("writing {}", self.path.display()))?;
        report::tell(format_args!("wrote `{name}` in {}", self.path.display()));
        Ok(())
    }
}

/// Medians of all peers, then where another is better, then what they take of the processor.
fn works(measured: &Measured) -> Result<String> {
    let mut text = medians(measured, "Median", Work::metrics)?;
    let remarks = report::remarks(measured)?;
    write!(
        text,
        "\n{}\n\n{}",
        remarks.trim().replace('\n', "\n\n"),
        cpu(measured)?
    )?;
    Ok(text)
}

fn cpu(measured: &Measured) -> Result<String> {
    medians(measured, "CPU of both sides", |_| &["CPU, both"])
}

/// A row for each of the metrics of each work, a column for each peer that has figures.
fn medians(
    measured: &Measured,
    heading: &str,
    metrics: impl Fn(Work) -> &'static [&'static str],
) -> Result<String> {
    let rows: Vec<(Work, &str)> = measured
        .works
        .iter()
        .flat_map(|work| metrics(*work).iter().map(|metric| (*work, *metric)))
        .collect();
    let mut peers = measured.peers.clone();
    peers.retain(|peer| {
        rows.iter()
            .any(|(work, metric)| measured.figure(*work, peer, metric).is_some())
    });
    let mut text = format!(
        "{}\n| {heading} | {} |\n",
        ground(measured),
        peers.join(" | ")
    );
    writeln!(text, "|---|{}", "--:|".repeat(peers.len()))?;
    for (work, metric) in rows {
        let figures: Vec<_> = peers
            .iter()
            .map(|peer| measured.figure(work, peer, metric))
            .collect();
        let Some(known) = figures.iter().flatten().next() else {
            continue;
        };
        write!(text, "| {work}: {metric}, {} |", known.unit)?;
        for (peer, figure) in peers.iter().zip(figures) {
            let median = figure.map_or("–".to_owned(), report::shown);
            let failed = report::failures(measured, work, peer);
            write!(text, " {median}{failed} |")?;
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

/// What stands in place of whether a goal is reached that a floor was to measure, and could not.
const FLOOR_BEATEN: &str = "floor beaten";

/// What hbi is to reach; the figures of the processor's time where they are steady, pinned to one core.
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
        let pinned = |cores: Cores| cores.server == cores.client;
        if metric == CPU && !measured.span.pin.is_some_and(pinned) {
            continue;
        }
        for peer in ["hbi-tcp", "hbi-unix"] {
            let missing = |of: &str| {
                let failed = report::failures(measured, work, of);
                format!("| {work}, {metric} | {peer} | – | {of} has no figure{failed} | – |\n")
            };
            let Some(figure) = measured.figure(work, peer, metric) else {
                text += &missing(peer);
                continue;
            };
            let ours = figure.median();
            let mut floor_beaten = false;
            let (wanted, against, reached) = match &goal {
                MostOf(ratio, name) | LeastOf(ratio, name) => {
                    let name = match peer {
                        // the loops by hand are over TCP only
                        "hbi-unix" => "rawmux-unix",
                        _ => *name,
                    };
                    let Some(floor) = measured.figure(work, name, metric) else {
                        text += &missing(name);
                        continue;
                    };
                    floor_beaten = figure.times_better(floor) > report::BEATS_FLOOR;
                    let of = amount(floor.median());
                    let share = figure.ratio(floor);
                    let (bound, reached) = match goal {
                        MostOf(..) => ("at most", share <= *ratio),
                        _ => ("at least", share >= *ratio),
                    };
                    let against = format!("{of} of {name}: {}", both_ratios(figure, floor));
                    (format!("{bound} {ratio} of {name}"), against, reached)
                }
                Most(most) => (format!("at most {most}"), String::new(), ours <= *most),
                Least(least) => (format!("at least {least}"), String::new(), ours >= *least),
                MostMore(most) => {
                    let Some(call) = measured.figure(Work::Pipe(64), peer, metric) else {
                        text += &missing("one typed call");
                        continue;
                    };
                    let call = call.median();
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
                "| {work}, {metric}: {wanted} | {peer} | {} {}{} | {against} | {} |",
                report::shown(figure),
                figure.unit,
                report::failures(measured, work, peer),
                match (reached, floor_beaten) {
                    (_, true) => FLOOR_BEATEN,
                    (true, false) => "yes",
                    (false, false) => "**no**",
                },
            )?;
        }
    }
    if text.contains(FLOOR_BEATEN) {
        writeln!(
            text,
            "\n{FLOOR_BEATEN}: what is meant for a floor was more than a tenth slower than hbi, so that the \
             ratio says nothing."
        )?;
    }
    Ok(text)
}

/// The ratio of rounds, and that of the medians where it is more than a tenth off.
fn both_ratios(figure: &Figure, to: &Figure) -> String {
    let (ratio, medians) = (figure.ratio(to), figure.median() / to.median());
    match (medians / ratio - 1.0).abs() > 0.1 {
        true => format!("{ratio:.2} (medians: {medians:.2})"),
        false => format!("{ratio:.2}"),
    }
}

/// How often each side allocates.
fn allocations(measured: &Measured) -> Result<String> {
    let mut text = String::new();
    for (side, metric) in [
        ("Allocations of the client", &["allocations, client"]),
        ("Allocations of the server", &["allocations, server"]),
    ] {
        let table = medians(measured, side, |_| metric)?;
        writeln!(text, "{table}")?;
    }
    Ok(text)
}
