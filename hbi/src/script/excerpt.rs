//! The part of a script that an error is about.

use crate::Place;

/// The line of a place with a caret under its column, or `None` where the source has no such line.
///
/// ```
/// let place = hbi::Place { line: 2, column: 5 };
/// let shown = hbi::script::excerpt("let a = 1;\nlet b = ;", place).unwrap();
/// assert_eq!(shown, "2 | let b = ;\n  |     ^");
/// ```
pub fn excerpt(source: &str, place: Place) -> Option<String> {
    let line = source.lines().nth(place.line.checked_sub(1)? as usize)?;
    let column = place.column.saturating_sub(1) as usize;
    // a long line is shown around the column
    let from = column.saturating_sub(60);
    let shown: String = line.chars().skip(from).take(120).collect();
    // tabs stay tabs, so that the caret stands where the eye expects it
    let lead: String = shown
        .chars()
        .take(column - from)
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    let number = place.line.to_string();
    let blank = " ".repeat(number.len());
    Some(format!("{number} | {shown}\n{blank} | {lead}^"))
}
