//! Charts of what was measured, as SVG and PNG.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{
    measure::Measured,
    report::{amount, how, machine, tell},
    works::Work,
};

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const FAINT: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
/// Ours, the floors, and the others.
const OURS: RGBColor = RGBColor(0xd1, 0x49, 0x2e);
const FLOOR: RGBColor = RGBColor(0x9a, 0xa3, 0xaf);
const OTHER: RGBColor = RGBColor(0x3f, 0x72, 0xaf);
const PANEL: (u32, u32) = (440, 260);
const TITLE: u32 = 70;
const MARGIN: i32 = 14;
/// How wide the peers' names are, left of the bars.
const NAMES: i32 = 96;
/// What is left for the figure right of a bar.
const AMOUNT: i32 = 72;
/// A bar that is so many times as long as the next would leave little of all others: it is cut off.
const CUT: f64 = 4.0;

/// What a panel shows.
enum Panel {
    /// A bar for each peer.
    Bars(Work),
    /// A line for each peer, over the number in the works' names.
    Lines(&'static str),
}

/// A panel of bars for each work.
pub(crate) fn works(measured: &Measured, dir: &Path, name: &str) -> Result<()> {
    let works = measured
        .works
        .iter()
        .filter(|work| !bars(measured, **work).is_empty());
    draw(
        measured,
        dir,
        name,
        &works.map(|work| Panel::Bars(*work)).collect::<Vec<_>>(),
    )
}

/// A panel of lines for each kind of work that has a number.
pub(crate) fn scale(measured: &Measured, dir: &Path) -> Result<()> {
    let mut kinds: Vec<&str> = Vec::new();
    for (kind, _) in measured.works.iter().filter_map(|work| work.number()) {
        if !kinds.contains(&kind) && !lines(measured, kind).is_empty() {
            kinds.push(kind);
        }
    }
    draw(
        measured,
        dir,
        "scale",
        &kinds.into_iter().map(Panel::Lines).collect::<Vec<_>>(),
    )
}

fn draw(measured: &Measured, dir: &Path, name: &str, panels: &[Panel]) -> Result<()> {
    if panels.is_empty() {
        tell("there is nothing to draw a chart of");
        return Ok(());
    }
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let columns = panels.len().min(3);
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32 + TITLE);
    let (svg, png) = (
        dir.join(format!("{name}.svg")),
        dir.join(format!("{name}.png")),
    );
    let drawing = |file: &Path| format!("drawing {}", file.display());
    grid(
        &SVGBackend::new(&svg, size).into_drawing_area(),
        measured,
        panels,
        (rows, columns),
    )
    .with_context(|| drawing(&svg))?;
    grid(
        &BitMapBackend::new(&png, size).into_drawing_area(),
        measured,
        panels,
        (rows, columns),
    )
    .with_context(|| drawing(&png))?;
    tell(format_args!("drew {} and {}", svg.display(), png.display()));
    Ok(())
}

type Area<B> = DrawingArea<B, Shift>;

fn grid<B: DrawingBackend>(
    root: &Area<B>,
    measured: &Measured,
    panels: &[Panel],
    grid: (usize, usize),
) -> Result<()>
where
    B::ErrorType: 'static,
{
    root.fill(&WHITE)?;
    let (title, below) = root.split_vertically(TITLE);
    for (line, about) in [machine(), how(measured)].iter().enumerate() {
        text(
            &title,
            about,
            (MARGIN, 8 + 18 * line as i32),
            14,
            HPos::Left,
        )?;
    }
    for (at, (of, color)) in legend(measured, panels).into_iter().enumerate() {
        let (x, y) = (MARGIN + 120 * at as i32, 50);
        title.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], color.filled()))?;
        text(&title, of, (x + 16, y - 2), 14, HPos::Left)?;
    }
    for (area, panel) in below.split_evenly(grid).iter().zip(panels) {
        match panel {
            Panel::Bars(work) => draw_bars(area, measured, *work)?,
            Panel::Lines(kind) => draw_lines(area, measured, kind)?,
        }
    }
    root.present()?;
    Ok(())
}

/// What the colours stand for: in bars kinds of peers, in lines the peers.
fn legend<'a>(measured: &'a Measured, panels: &[Panel]) -> Vec<(&'a str, RGBColor)> {
    if panels.iter().any(|panel| matches!(panel, Panel::Bars(_))) {
        return vec![("hbi", OURS), ("floor", FLOOR), ("other library", OTHER)];
    }
    let peers = measured.peers.iter();
    peers
        .map(|peer| (*peer, line_color(measured, peer)))
        .collect()
}

/// The peers that have a figure, with its median and spread.
fn bars(measured: &Measured, work: Work) -> Vec<(&str, [f64; 3])> {
    let bar = |peer: &&'static str| {
        let figure = measured.figure(work, peer, work.metric())?;
        Some((*peer, [figure.lowest(), figure.median(), figure.highest()]))
    };
    measured.peers.iter().filter_map(bar).collect()
}

fn draw_bars<B: DrawingBackend>(area: &Area<B>, measured: &Measured, work: Work) -> Result<()>
where
    B::ErrorType: 'static,
{
    let bars = bars(measured, work);
    let figure = bars
        .first()
        .and_then(|(peer, _)| measured.figure(work, peer, work.metric()));
    let (unit, better) = figure.map_or(("", ""), |figure| {
        (
            figure.unit.as_str(),
            if figure.is_rate() {
                "more is better"
            } else {
                "less is better"
            },
        )
    });
    text(area, &work.to_string(), (MARGIN, 0), 17, HPos::Left)?;
    let subtitle = format!("{}, {unit}; {better}", work.metric());
    text(
        area,
        &subtitle,
        (PANEL.0 as i32 - MARGIN, 2),
        13,
        HPos::Right,
    )?;
    let mut longest: Vec<f64> = bars.iter().map(|(_, [.., highest])| *highest).collect();
    longest.sort_by(|a, b| b.total_cmp(a));
    let most = match longest[..] {
        [longest, next, ..] if longest > CUT * next => next,
        [longest, ..] => longest,
        [] => return Ok(()),
    };
    let (left, top) = (MARGIN + NAMES, 26);
    let width = f64::from(PANEL.0 as i32 - MARGIN - AMOUNT - left);
    let height = ((PANEL.1 as i32 - top - MARGIN) / bars.len() as i32).min(28);
    let x = |value: f64| left + (value.min(most) / most * width) as i32;
    for (at, (peer, [lowest, median, highest])) in bars.iter().enumerate() {
        let y = top + at as i32 * height;
        let (above, middle, under) = (y + height / 6, y + height / 2, y + height - height / 6);
        text(area, peer, (left - 8, middle - 7), 14, HPos::Right)?;
        area.draw(&Rectangle::new(
            [(left, above), (x(*median).max(left + 1), under)],
            color(peer).filled(),
        ))?;
        area.draw(&PathElement::new(
            vec![(x(*lowest), middle), (x(*highest), middle)],
            INK,
        ))?;
        let cut = if *highest > most { " (cut)" } else { "" };
        text(
            area,
            &format!("{}{cut}", amount(*median)),
            (x(*highest).max(x(*median)) + 6, middle - 7),
            14,
            HPos::Left,
        )?;
    }
    Ok(())
}

/// The peers that have figures of this kind, each with CPU per call over the number.
fn lines<'a>(measured: &'a Measured, kind: &str) -> Vec<(&'a str, Vec<(f64, f64)>)> {
    let line = |peer: &&'static str| {
        let points = measured.works.iter().filter_map(|work| {
            let (_, number) = work.number().filter(|(known, _)| *known == kind)?;
            Some((
                number as f64,
                measured.figure(*work, peer, "CPU, both")?.median(),
            ))
        });
        (*peer, points.collect::<Vec<_>>())
    };
    measured
        .peers
        .iter()
        .map(line)
        .filter(|(_, points)| !points.is_empty())
        .collect()
}

fn draw_lines<B: DrawingBackend>(area: &Area<B>, measured: &Measured, kind: &str) -> Result<()>
where
    B::ErrorType: 'static,
{
    let lines = lines(measured, kind);
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (mut most_x, mut least_y, mut most_y) = (1.0_f64, f64::MAX, f64::MIN_POSITIVE);
    for (x, y) in points() {
        (most_x, least_y, most_y) = (most_x.max(*x), least_y.min(*y), most_y.max(*y));
    }
    // whole decades, so that a cliff looks as large in each chart
    let decade = |value: f64, round: fn(f64) -> f64| 10_f64.powf(round(value.log10()));
    let (bottom, top) = (
        decade(least_y, f64::floor),
        decade(most_y * 1.01, f64::ceil),
    );
    let title = format!("{kind}: CPU of both sides, µs per call");
    let of = match kind {
        "pipe" => "calls in flight",
        "interned" => "scripts",
        _ => kind,
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16, &INK))
        .margin(MARGIN)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(
            (1.0..most_x * 1.1).log_scale(),
            (bottom * 0.99..top * 1.01).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style((FONT, 13, &INK))
        .x_desc(of)
        .x_label_formatter(&power_of_ten)
        .y_label_formatter(&power_of_ten)
        .draw()?;
    for (peer, points) in lines {
        let color = line_color(measured, peer);
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?;
    }
    Ok(())
}

/// A label where it is a whole decade; labels in between would stand one on the other.
fn power_of_ten(value: &f64) -> String {
    let power = value.log10();
    let decimals = (-power.round()).max(0.0) as usize;
    match (power - power.round()).abs() < 1e-6 {
        true => format!("{value:.decimals$}"),
        false => String::new(),
    }
}

/// The same in each panel, of each peer another.
fn line_color(measured: &Measured, peer: &str) -> RGBColor {
    let at = measured.peers.iter().position(|known| *known == peer);
    match peer {
        "rawmux" | "hbi-tcp" => color(peer),
        _ => {
            let (red, green, blue) = Palette99::pick(at.unwrap_or_default()).rgb();
            RGBColor(red, green, blue)
        }
    }
}

fn color(peer: &str) -> RGBColor {
    if peer.starts_with("hbi") {
        OURS
    } else if peer.starts_with("raw") {
        FLOOR
    } else {
        OTHER
    }
}

fn text<B: DrawingBackend>(
    area: &Area<B>,
    text: &str,
    at: (i32, i32),
    size: u32,
    align: HPos,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let style = TextStyle::from((FONT, size))
        .color(&INK)
        .pos(Pos::new(align, VPos::Top));
    area.draw_text(text, &style, at)?;
    Ok(())
}
