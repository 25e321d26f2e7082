//! Names and texts of strangers: made presentable, shown without harm, and kept as files that stay
//! in their directory.

use std::borrow::Cow;

use crate::protocol::{LOBBY, Refused};

/// The most characters of a nick.
const NICK: usize = 32;

/// The most characters of a room's name.
const ROOM: usize = 48;

/// The most bytes of a file's name as it is kept, so that there is room for what is added to it.
const KEPT: usize = 220;

/// Nicks that would pass for the server's own voice.
const RESERVED: [&str; 3] = ["server", "system", "admin"];

/// A nick as it is accepted; empty where nothing of it is left.
pub(crate) fn nick(wanted: &str) -> String {
    let nick = presentable(wanted, NICK);
    if RESERVED.contains(&nick.to_lowercase().as_str()) {
        return format!("not the {nick}");
    }
    nick
}

/// A room's name as it is accepted: the lobby's where nothing of it is left.
pub(crate) fn room(wanted: &str) -> String {
    let room = presentable(wanted.trim_start_matches(['#', ' ']), ROOM);
    if room.is_empty() {
        return LOBBY.to_owned();
    }
    room
}

/// Without what does not show, with single blanks, and cut to a number of characters.
fn presentable(name: &str, most: usize) -> String {
    let visible: String = name
        .chars()
        .take(most * 4)
        .filter(|c| c.is_whitespace() || !(is_harmful(*c) || is_unseen(*c)))
        .collect();
    let words: Vec<_> = visible.split_whitespace().collect();
    let short: String = words.join(" ").chars().take(most).collect();
    short.trim_end().to_owned()
}

/// Whether a character could command a terminal, or change in which order others are read.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Whether a character does no harm in a line, but makes two names look alike, or one like none: soft
/// hyphen, joiners, blank letters, variants.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

/// A text that can be shown: harmful characters are spelled out, but for ends of lines.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push('\n'),
            '\t' => shown.push(' '),
            _ if is_harmful(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// A text on one line that can be shown.
pub(crate) fn shown_line(text: &str) -> String {
    shown(text).replace('\n', "\\n")
}

/// The name under which a file or room is kept. Each name has one of its own (but where the file system
/// takes small and large letters for the same), none leaves its directory, and [`original`] gives it
/// back.
///
/// # Errors
/// When the name is empty, too long, or contains NUL.
pub(crate) fn kept(name: &str) -> Result<String, Refused> {
    if name.is_empty() {
        return Err(Refused::Name("it is empty".into()));
    }
    if name.contains('\0') {
        // the text wire could not carry a list with it
        return Err(Refused::Name("it contains NUL".into()));
    }
    let mut kept = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let leading = at == 0 && matches!(c, '.' | ' ');
        if leading || is_harmful(c) || "/\\%:*?\"<>|".contains(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                kept.push_str(&format!("%{byte:02X}"));
            }
        } else {
            kept.push(c);
        }
        if kept.len() > KEPT {
            let bytes = name.len();
            return Err(Refused::Name(format!("{bytes} bytes are too many")));
        }
    }
    Ok(kept)
}

/// The name of which a kept name was made; nothing where it was not made by [`kept`].
pub(crate) fn original(kept: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(kept.len());
    let mut rest = kept.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let byte = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(byte).ok()?);
    }
    String::from_utf8(bytes).ok()
}
