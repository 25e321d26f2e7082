//! Draws the terminal interface. Its text has the terminal's own colours; the few others are between
//! light and dark, so that they read on both.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Gauge, Paragraph},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::model::{Entry, Model, Running, Status};
use crate::names;

/// From this width on the members are shown.
const WIDE: u16 = 60;

/// How wide the members are.
const MEMBERS: u16 = 22;

/// The most transfers that are shown.
const TRANSFERS: usize = 4;

/// What tells nicks apart: a blue, a pink, a green, and a violet. Of the terminal's own sixteen none
/// would do: its blue is lost on black, its cyan and green on white.
const COLOURS: [Color; 4] = [
    Color::Indexed(32),
    Color::Indexed(162),
    Color::Indexed(28),
    Color::Indexed(99),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let area = frame.area();
    let spare = usize::from(area.height.saturating_sub(6));
    let transfers = model.transfers.len().min(TRANSFERS).min(spare);
    let [head, body, bars, status, input] = Layout::vertical([
        Constraint::Length(u16::from(area.height > 3)),
        Constraint::Min(u16::from(area.height > 1)),
        Constraint::Length(transfers as u16),
        Constraint::Length(u16::from(area.height > 2)),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, model);
    if area.width >= WIDE {
        let [messages, members] =
            Layout::horizontal([Constraint::Min(1), Constraint::Length(MEMBERS)]).areas(body);
        draw_messages(frame, messages, model);
        draw_members(frame, members, model);
    } else {
        draw_messages(frame, body, model);
    }
    for (running, row) in model.transfers.iter().take(transfers).zip(bars.rows()) {
        draw_transfer(frame, row, running);
    }
    draw_status(frame, status, model);
    draw_input(frame, input, model);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let Model {
        room,
        nick,
        address,
        ..
    } = model;
    let count = model.members.len();
    let text = format!(" #{room}  {nick}  {count} here  {address}");
    frame.render_widget(Paragraph::new(text).reversed(), area);
}

fn draw_messages(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    // from the newest one upwards, no further than is shown
    let mut lines = Vec::new();
    for entry in model.entries.iter().rev() {
        lines.extend(wrapped(entry, width).into_iter().rev());
        if lines.len() >= height + model.scrolled {
            break;
        }
    }
    model.scrolled = model.scrolled.min(lines.len().saturating_sub(height));
    let shown = lines.into_iter().skip(model.scrolled).take(height);
    let mut shown: Vec<_> = shown.collect();
    shown.reverse();
    frame.render_widget(Paragraph::new(shown), area);
}

/// An entry in lines of a width.
fn wrapped(entry: &Entry, width: usize) -> Vec<Line<'static>> {
    match entry {
        Entry::Told(text) => {
            let lines = wrap(text, width, 0);
            lines
                .into_iter()
                .map(|line| Line::from(line).dim())
                .collect()
        }
        Entry::Said { nick, text } => {
            let head = format!("{nick}: ");
            let indent = head.width();
            // a nick that fills the pane gets a line of its own
            let (indent, alone) = if indent * 2 > width {
                (0, true)
            } else {
                (indent, false)
            };
            let style = Style::new().fg(colour(nick)).add_modifier(Modifier::BOLD);
            let mut lines = Vec::new();
            if alone {
                lines.push(Line::styled(head.clone(), style));
            }
            for (at, line) in wrap(text, width, indent).into_iter().enumerate() {
                let blank = " ".repeat(indent);
                lines.push(match (at, alone) {
                    (0, false) => Line::from(vec![Span::styled(head.clone(), style), line.into()]),
                    _ => Line::from(format!("{blank}{line}")),
                });
            }
            lines
        }
    }
}

/// A text in lines, each with room for an indent; cut between words where they fit.
fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let width = width.saturating_sub(indent).max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        if used > 0 && used + word.trim_end().width() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > width && c != ' ' {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += wide;
        }
    }
    lines.push(line);
    lines
}

/// A colour of a nick's own.
fn colour(nick: &str) -> Color {
    let sum: usize = nick.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

fn draw_members(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let block = Block::new()
        .borders(Borders::LEFT)
        .border_style(Style::new().dim());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let room = usize::from(inner.height);
    let mut lines: Vec<_> = model
        .members
        .iter()
        .take(room)
        .map(|nick| Line::styled(format!(" {nick}"), Style::new().fg(colour(nick))))
        .collect();
    if model.members.len() > room
        && let Some(last) = lines.last_mut()
    {
        *last = Line::from(format!(" … and {} more", model.members.len() + 1 - room)).dim();
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_transfer(frame: &mut Frame<'_>, area: Rect, running: &Running) {
    let (share, rate) = running.progress();
    let transfer = &running.transfer;
    let way = if transfer.up { '↑' } else { '↓' };
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let label = format!(
        "{way} {} {:.0} % of {:.1} MiB, {:.1} MiB/s",
        names::shown_line(&transfer.name),
        share * 100.0,
        mib(transfer.size as f64),
        mib(rate),
    );
    let gauge = Gauge::default()
        .ratio(share)
        .label(label)
        .gauge_style(Style::new().fg(COLOURS[0]));
    frame.render_widget(gauge, area);
}

fn draw_status(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let line = match &model.status {
        Status::Error(text) => Line::from(format!("! {text}")).red().bold(),
        Status::Info(text) => Line::from(text.clone()).dim(),
        Status::Nothing if model.scrolled > 0 => {
            Line::from(format!("{} lines below, PageDown", model.scrolled)).dim()
        }
        Status::Nothing => Line::from("? help  Tab completes  PageUp scrolls  Ctrl-C ends").dim(),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_input(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    const PROMPT: &str = "> ";
    let room = usize::from(area.width).saturating_sub(PROMPT.len() + 1);
    let before = names::shown_line(model.input.before());
    // what is left of the pane is cut off, so that the cursor stays in it
    let mut width = 0;
    let fits = before.char_indices().rev().take_while(|(_, c)| {
        width += c.width().unwrap_or(0);
        width <= room
    });
    let from = fits.last().map_or(before.len(), |(at, _)| at);
    let behind = names::shown_line(model.input.behind());
    let line = Line::from(vec![
        Span::from(PROMPT).bold(),
        Span::from(&before[from..]),
        Span::from(behind),
    ]);
    frame.render_widget(Paragraph::new(line), area);
    let column = PROMPT.len() + before[from..].width().min(room);
    let column = area.width.saturating_sub(1).min(column as u16);
    frame.set_cursor_position((area.x + column, area.y));
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    /// How much lighter one is than the other, of two shades of light between 0 and 1.
    fn contrast(one: f64, other: f64) -> f64 {
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn colours_read_on_black_and_on_white() {
        for colour in COLOURS {
            let Color::Indexed(index @ 16..232) = colour else {
                panic!("{colour} looks different in each terminal");
            };
            let steps = [0.0, 95.0, 135.0, 175.0, 215.0, 255.0];
            let part = |size: u8| {
                let share = steps[usize::from((index - 16) / size % 6)] / 255.0;
                f64::powf((share + 0.055) / 1.055, 2.4) * f64::from(u8::from(share > 0.0))
            };
            let light = 0.2126 * part(36) + 0.7152 * part(6) + 0.0722 * part(1);
            let (on_black, on_white) = (contrast(light, 0.0), contrast(light, 1.0));
            assert!(
                on_black > 3.5 && on_white > 3.5,
                "{colour}: {on_black}, {on_white}"
            );
        }
    }

    /// Where the cursor is once all is drawn, in a terminal of this size.
    fn cursor(model: &mut Model, width: u16, height: u16) -> (u16, u16) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let drawn = terminal.draw(|frame| draw(frame, model));
        drawn.expect("is drawn");
        let at = terminal.get_cursor_position().expect("is somewhere");
        (at.x, at.y)
    }

    #[test]
    fn the_cursor_stands_behind_what_is_shown_before_it() {
        let mut model = Model::default();
        model.input.insert("a\u{200d}你");
        // the joiner is spelled out
        let shown = r"> a\u{200d}你".width();
        assert_eq!(cursor(&mut model, 80, 10), (shown as u16, 9));
        model.input.insert(&"好".repeat(500));
        // a wide character leaves a column
        assert_eq!(cursor(&mut model, 80, 10), (78, 9));
        model.input.home();
        assert_eq!(cursor(&mut model, 80, 10), (2, 9));
    }

    #[test]
    fn all_is_drawn_in_a_terminal_of_any_size() {
        let mut model = Model::default();
        let words = "wide 你好 e\u{301} ❤\u{fe0f} ".repeat(30);
        model.input.insert(&words);
        let (nick, text) = ("你好".repeat(16), words.clone());
        model.entries.push_back(Entry::Said { nick, text });
        model.entries.push_back(Entry::Told(words.clone()));
        model.members = vec![words; 30];
        for (width, height) in [(1, 1), (3, 2), (3, 3), (59, 6), (60, 7), (200, 50)] {
            let (x, y) = cursor(&mut model, width, height);
            assert!(x < width && y < height, "{x}, {y} of {width}, {height}");
        }
    }

    #[test]
    fn wraps_between_words_and_within_long_ones() {
        assert_eq!(wrap("one two three", 8, 0), ["one two ", "three"]);
        assert_eq!(wrap("abcdefghij", 4, 0), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("你好世界", 5, 0), ["你好", "世界"]);
        assert_eq!(wrap("x", 0, 5), ["x"]);
        assert_eq!(wrap("", 10, 0), [""]);
    }
}
