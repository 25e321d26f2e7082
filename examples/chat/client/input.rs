//! The line that one types: a cursor, what was typed before, completion.

use crate::protocol::LINE;

/// How many lines are remembered.
const REMEMBERED: usize = 200;

/// The line that one types.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    /// A place in `text`, in bytes, between characters.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown, and what was typed before it was.
    recalled: Option<(usize, String)>,
    completion: Option<Completion>,
}

/// What the word at the cursor may become, one after the other.
#[derive(Debug)]
struct Completion {
    from: usize,
    candidates: Vec<String>,
    next: usize,
}

/// What is to be completed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// A room that begins so.
    Room(String),
    /// A file here.
    LocalFile(String),
    /// A file of the room.
    ServerFile(String),
    /// A member's nick.
    Nick(String),
}

impl Wanted {
    /// How what is wanted begins.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Room(prefix)
            | Self::LocalFile(prefix)
            | Self::ServerFile(prefix)
            | Self::Nick(prefix) => prefix,
        }
    }
}

impl Input {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// What stands behind it.
    pub(super) fn behind(&self) -> &str {
        &self.text[self.cursor..]
    }

    /// Types something, as much of it as a line may have.
    pub(super) fn insert(&mut self, text: &str) {
        self.edited();
        let mut fits = text.len().min(LINE.saturating_sub(self.text.len()));
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text.insert_str(self.cursor, &text[..fits]);
        self.cursor += fits;
    }

    pub(super) fn backspace(&mut self) {
        let end = self.cursor;
        self.left();
        self.remove(self.cursor, end);
    }

    pub(super) fn delete(&mut self) {
        let next = self.text[self.cursor..].chars().next();
        let end = self.cursor + next.map_or(0, char::len_utf8);
        self.remove(self.cursor, end);
    }

    /// Deletes the word before the cursor.
    pub(super) fn delete_word(&mut self) {
        let before = self.before().trim_end();
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        self.remove(start, self.cursor);
    }

    pub(super) fn delete_before(&mut self) {
        self.remove(0, self.cursor);
    }

    pub(super) fn delete_behind(&mut self) {
        self.remove(self.cursor, self.text.len());
    }

    pub(super) fn left(&mut self) {
        self.completion = None;
        let last = self.before().chars().next_back();
        self.cursor -= last.map_or(0, char::len_utf8);
    }

    pub(super) fn right(&mut self) {
        self.completion = None;
        let next = self.text[self.cursor..].chars().next();
        self.cursor += next.map_or(0, char::len_utf8);
    }

    pub(super) fn home(&mut self) {
        self.completion = None;
        self.cursor = 0;
    }

    pub(super) fn end(&mut self) {
        self.completion = None;
        self.cursor = self.text.len();
    }

    /// Takes the line, and remembers it.
    pub(super) fn take(&mut self) -> String {
        self.edited();
        self.cursor = 0;
        let line = std::mem::take(&mut self.text);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > REMEMBERED {
                self.history.remove(0);
            }
        }
        line
    }

    /// Shows the line that was typed before.
    pub(super) fn earlier(&mut self) {
        let at = match &self.recalled {
            Some((at, _)) => *at,
            None => self.history.len(),
        };
        let Some(line) = at.checked_sub(1).and_then(|at| self.history.get(at)) else {
            return;
        };
        let typed = match self.recalled.take() {
            Some((_, typed)) => typed,
            None => std::mem::take(&mut self.text),
        };
        self.text.clone_from(line);
        self.recalled = Some((at - 1, typed));
        self.end();
    }

    /// Shows the line that was typed next, at last what is being typed.
    pub(super) fn later(&mut self) {
        let Some((at, typed)) = self.recalled.take() else {
            return;
        };
        match self.history.get(at + 1) {
            Some(line) => {
                self.text.clone_from(line);
                self.recalled = Some((at + 1, typed));
            }
            None => self.text = typed,
        }
        self.end();
    }

    /// What would complete the line; nothing where the next candidate is shown already.
    pub(super) fn complete(&mut self) -> Option<Wanted> {
        if self.completion.is_some() {
            self.show_next();
            return None;
        }
        let before = self.before();
        let rest = |sign: char| {
            before
                .strip_prefix(sign)
                .map(|rest| rest.trim_start().to_owned())
        };
        Some(if let Some(room) = rest('#') {
            Wanted::Room(room)
        } else if let Some(file) = rest('>') {
            Wanted::LocalFile(file)
        } else if let Some(file) = rest('<') {
            Wanted::ServerFile(file)
        } else {
            let word = before.rsplit(' ').next().unwrap_or_default();
            Wanted::Nick(word.to_owned())
        })
    }

    /// Shows the first of the candidates, if the line is still the one to be completed.
    pub(super) fn offer(&mut self, wanted: &Wanted, all: Vec<String>) {
        let prefix = wanted.prefix();
        let starts = |name: &String| name.to_lowercase().starts_with(&prefix.to_lowercase());
        let mut candidates: Vec<_> = all.into_iter().filter(starts).collect();
        if self.complete().as_ref() != Some(wanted) || candidates.is_empty() {
            return;
        }
        candidates.push(prefix.to_owned());
        self.completion = Some(Completion {
            from: self.cursor - prefix.len(),
            candidates,
            next: 0,
        });
        self.show_next();
    }

    fn show_next(&mut self) {
        let Some(completion) = &mut self.completion else {
            return;
        };
        let name = &completion.candidates[completion.next];
        completion.next = (completion.next + 1) % completion.candidates.len();
        let from = completion.from;
        self.text.replace_range(from..self.cursor, name);
        self.cursor = from + name.len();
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.edited();
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    fn edited(&mut self) {
        self.completion = None;
        self.recalled = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::default();
        input.insert(text);
        input
    }

    #[test]
    fn edits_between_characters_of_any_size() {
        let mut input = typed("aé😀b");
        input.left();
        input.backspace();
        assert_eq!((input.text(), input.before()), ("aéb", "aé"));
        input.delete();
        input.home();
        input.delete();
        assert_eq!((input.text(), input.before()), ("é", ""));
        input.backspace();
        assert_eq!(input.text(), "é");
        let mut input = typed("two words here");
        input.delete_word();
        assert_eq!(input.text(), "two words ");
        input.delete_word();
        assert_eq!(input.text(), "two ");
    }

    #[test]
    fn what_is_pasted_is_cut_where_a_line_ends() {
        let mut input = typed("x");
        input.home();
        input.insert(&"é".repeat(100_000));
        assert_eq!(input.before().len(), LINE - 2);
        input.insert("yz");
        assert_eq!(input.text().len(), LINE);
        assert!(input.text().ends_with("éyx"));
    }

    #[test]
    fn remembers_what_was_typed() {
        let mut input = typed("one");
        input.take();
        input.insert("two");
        input.take();
        input.insert("three");
        input.earlier();
        input.earlier();
        input.earlier();
        assert_eq!(input.text(), "one");
        input.later();
        assert_eq!(input.text(), "two");
        input.later();
        assert_eq!(input.text(), "three");
    }

    #[test]
    fn completes_in_turns() {
        let mut input = typed("< Fi");
        let wanted = input.complete().expect("wants something");
        assert_eq!(wanted, Wanted::ServerFile("Fi".into()));
        let all = ["file one", "other", "file two"].map(String::from);
        input.offer(&wanted, all.to_vec());
        assert_eq!(input.text(), "< file one");
        assert_eq!(input.complete(), None);
        assert_eq!(input.text(), "< file two");
        input.complete();
        assert_eq!(input.text(), "< Fi");
        input.insert("x");
        input.offer(&wanted, all.to_vec());
        assert_eq!(input.text(), "< Fix");
    }
}
