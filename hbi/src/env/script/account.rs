//! How much memory the values of a running script take.
//!
//! The interpreter checks the size of one value where it makes it, but not where it is put into
//! another, and never looks at all of them together. So each time a script reads a variable, that
//! variable is measured, before it can be copied, and so is the one that was read before it, which
//! may have grown, and each that is new.
//!
//! Values that are no variables' yet are those of open argument lists, operands and iterations. The
//! text tells how many there can be in one function, so with the functions that are under way they
//! are reckoned with as if each was as large as a value may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rhai::{Array, Blob, Dynamic, EvalAltResult, ImmutableString, Map, Position, Scope};

use super::{calls, engine::VARIABLES};
use crate::{
    Failure,
    env::{Bounds, share::Share},
    value::{Content, content},
};

/// How deep values may be nested, in scripts as on the wire.
const NESTING: usize = crate::value::MAX_DEPTH;

/// What the interpreter takes for one value in an array, for one entry of a map, and for a map that
/// is not empty at least, in bytes.
const ELEMENT: usize = 16;
const ENTRY: usize = 96;
const FEW_ENTRIES: usize = 480;

/// What a text, an array or a map takes beside its content.
const OWN: usize = 48;

/// Packed values of so few bytes are within any sensible bounds.
const SMALL: usize = 64;

/// The memory of one script.
#[derive(Debug)]
pub(super) struct Account {
    /// The functions under way.
    levels: Vec<Level>,
    /// Bytes of all their variables.
    total: usize,
    /// Bytes of values that are packed still, and only passed on.
    passed_on: Arc<AtomicUsize>,
    /// What it has of the connection's memory.
    share: Share,
}

/// A value that is only passed on, as long as it is there.
pub(super) struct PassedOn {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for PassedOn {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The variables of one function.
#[derive(Debug, Default)]
struct Level {
    /// Bytes of each, as far as they are known.
    sizes: Vec<usize>,
    /// The one that was touched last: it may have grown since.
    touched: usize,
}

/// The size of a value.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    bytes: usize,
    elements: usize,
    entries: usize,
    text: usize,
}

impl Account {
    pub(super) fn new(share: Share) -> Self {
        Self {
            levels: Vec::new(),
            total: 0,
            passed_on: Arc::default(),
            share,
        }
    }

    /// A variable is about to be read, or changed: the one that is `back` variables from the end
    /// of the scope, or is found by its name where that is 0.
    pub(super) fn touch(
        &mut self,
        name: &str,
        back: usize,
        scope: &Scope<'_>,
        level: usize,
        pending: usize,
        bounds: &Bounds,
    ) -> Result<(), Box<EvalAltResult>> {
        let at = match scope.len().checked_sub(back) {
            Some(at) if back > 0 => Some(at),
            _ => last_of(name, scope),
        };
        let Some(at) = at else {
            // without this, the name of a function would be a pointer to it
            let name = name.to_owned();
            return Err(EvalAltResult::ErrorVariableNotFound(name, Position::NONE).into());
        };
        self.measure(scope, level, pending, bounds)?;
        self.levels[level].touched = at;
        match from_end(scope).nth(scope.len() - 1 - at) {
            Some((_, value)) if is_large(value) => check(value, bounds).map_err(calls::ended),
            _ => Ok(()),
        }
    }

    /// A variable is about to come into being.
    pub(super) fn define(
        &mut self,
        scope: &Scope<'_>,
        level: usize,
        pending: usize,
        bounds: &Bounds,
    ) -> Result<(), Box<EvalAltResult>> {
        // counted here, since the interpreter does not count all
        if scope.len() >= VARIABLES {
            return Err(calls::ended(too_many_variables()));
        }
        self.measure(scope, level, pending, bounds)
    }

    /// Measures the variables that are new, and the one that may have grown.
    fn measure(
        &mut self,
        scope: &Scope<'_>,
        level: usize,
        pending: usize,
        bounds: &Bounds,
    ) -> Result<(), Box<EvalAltResult>> {
        if level >= self.levels.len() {
            let could = (level + 1).saturating_mul(least(pending, bounds));
            if could > bounds.memory {
                return Err(calls::ended(too_many(pending, level + 1, bounds)));
            }
        }
        for gone in self.levels.drain((level + 1).min(self.levels.len())..) {
            self.total -= gone.sizes.iter().sum::<usize>();
        }
        self.levels.resize_with(level + 1, Level::default);
        let Level { sizes, touched } = &mut self.levels[level];
        for gone in sizes.drain(scope.len().min(sizes.len())..) {
            self.total -= gone;
        }
        let known = sizes.len();
        sizes.resize(scope.len(), 0);
        let first = (*touched).min(known);
        let values = from_end(scope).map(|(_, value)| value);
        for (at, value) in (first..scope.len()).rev().zip(values) {
            if at == *touched || at >= known {
                let size = size_of(value);
                self.total = self.total - sizes[at] + size;
                sizes[at] = size;
            }
        }
        if self.total > bounds.memory {
            return Err(calls::ended(exceeded(bounds.memory)));
        }
        self.hold(pending, bounds).map_err(calls::ended)
    }

    /// A packed value is about to be passed on.
    pub(super) fn pass_on(
        &mut self,
        bytes: usize,
        pending: usize,
        bounds: &Bounds,
    ) -> Result<PassedOn, Failure> {
        let before = self.passed_on.fetch_add(bytes, Ordering::Relaxed);
        let of = Arc::clone(&self.passed_on);
        let passed_on = PassedOn { bytes, of };
        if before + bytes > bounds.memory {
            return Err(exceeded(bounds.memory));
        }
        self.hold(pending, bounds)?;
        Ok(passed_on)
    }

    /// What it takes of the connection's memory.
    fn hold(&mut self, pending: usize, bounds: &Bounds) -> Result<(), Failure> {
        let could = self
            .levels
            .len()
            .max(1)
            .saturating_mul(least(pending, bounds));
        let passed_on = self.passed_on.load(Ordering::Relaxed);
        let held = could.saturating_add(self.total).saturating_add(passed_on);
        self.share.resize(held)
    }
}

/// The variables of a scope, the last first: the interpreter has them in this order.
fn from_end<'a>(scope: &'a Scope<'_>) -> impl Iterator<Item = (&'a str, &'a Dynamic)> {
    scope.iter_raw().map(|(name, _, value)| (name, value))
}

fn last_of(name: &str, scope: &Scope<'_>) -> Option<usize> {
    let back = from_end(scope).position(|(known, _)| known == name)?;
    Some(scope.len() - 1 - back)
}

pub(super) fn too_many_variables() -> Failure {
    Failure::limit("variables", VARIABLES, "make it several scripts")
}

/// What the values of open argument lists of one function are reckoned with.
pub(super) fn least(pending: usize, bounds: &Bounds) -> usize {
    pending.saturating_add(1).saturating_mul(bounds.value)
}

/// Whether a script could hold too much in its argument lists alone.
pub(super) fn check_pending(pending: usize, bounds: &Bounds) -> Result<(), Failure> {
    if least(pending, bounds) > bounds.memory {
        return Err(too_many(pending, 1, bounds));
    }
    Ok(())
}

fn too_many(pending: usize, functions: usize, bounds: &Bounds) -> Failure {
    exceeded(format_args!(
        "{}, where {functions} functions under way could each hold {pending} values in argument \
         lists",
        bounds.memory,
    ))
}

fn exceeded(bound: impl std::fmt::Display) -> Failure {
    Failure::limit("memory", bound, "raise `Bounds::memory` at the host")
}

/// Whether a value is one that a script may have.
pub(super) fn check(value: &Dynamic, bounds: &Bounds) -> Result<(), Failure> {
    let mut size = Size::default();
    if !size.add(value, NESTING) {
        return Err(Failure::limit("nesting", NESTING, "nest values less"));
    }
    size.within(bounds)
}

/// Whether a packed value is one that a script may look into.
pub(super) fn check_packed(bytes: &[u8], bounds: &Bounds) -> Result<(), Failure> {
    if bytes.len() <= SMALL {
        // most values
        return Ok(());
    }
    let Content {
        text,
        binary,
        elements,
        entries,
        maps,
        compound,
    } = content(bytes);
    let elements = elements + binary;
    Size {
        bytes: text + elements * ELEMENT + entries * ENTRY + maps * FEW_ENTRIES + compound * OWN,
        elements,
        entries,
        text,
    }
    .within(bounds)
}

fn of_entries(count: usize) -> usize {
    match count {
        0 => 0,
        count => FEW_ENTRIES.max(count * ENTRY),
    }
}

/// Whether a value is of a kind that may be large.
fn is_large(value: &Dynamic) -> bool {
    value.is_string() || value.is_array() || value.is_map() || value.is_blob()
}

fn size_of(value: &Dynamic) -> usize {
    if !is_large(value) {
        return ELEMENT + OWN;
    }
    let mut size = Size::default();
    // what was put into it since it was checked is not deep
    size.add(value, 2 * NESTING);
    ELEMENT + OWN + size.bytes
}

impl Size {
    fn within(self, bounds: &Bounds) -> Result<(), Failure> {
        let limits = [
            ("string", self.text, bounds.string),
            ("array", self.elements, bounds.array),
            ("map", self.entries, bounds.map),
            ("value", self.bytes, bounds.value),
        ];
        match limits.into_iter().find(|(_, size, limit)| size > limit) {
            Some((name, _, limit)) => {
                let raise = format!("raise `Bounds::{name}` at the host");
                Err(Failure::limit(name, limit, &raise))
            }
            None => Ok(()),
        }
    }

    /// Adds a value; tells whether it is nested no deeper than it may be.
    fn add(&mut self, value: &Dynamic, depth: usize) -> bool {
        if depth == 0 {
            return false;
        }
        if !is_large(value) {
            return true;
        }
        if let Some(text) = value.read_lock::<ImmutableString>() {
            self.text += text.len();
            self.bytes += OWN + text.len();
        } else if let Some(array) = value.read_lock::<Array>() {
            self.elements += array.len();
            self.bytes += OWN + array.capacity() * ELEMENT;
            return array.iter().all(|value| self.add(value, depth - 1));
        } else if let Some(map) = value.read_lock::<Map>() {
            self.entries += map.len();
            self.bytes += OWN + of_entries(map.len());
            for (key, value) in map.iter() {
                self.text += key.len();
                self.bytes += key.len();
                if !self.add(value, depth - 1) {
                    return false;
                }
            }
        } else if let Some(bytes) = value.read_lock::<Blob>() {
            self.elements += bytes.len();
            self.bytes += OWN + bytes.capacity();
        }
        // a packed one was counted where it was made
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::share::Pool;

    fn account() -> (Account, Bounds) {
        let bounds = Bounds::default();
        (
            Account::new(Pool::new(bounds.connection_memory).share()),
            bounds,
        )
    }

    #[test]
    fn a_scope_is_seen_from_its_end() {
        let mut scope = Scope::new();
        scope.push("a", 1_i64).push("b", 2_i64).push("a", 3_i64);
        let seen: Vec<_> = from_end(&scope)
            .map(|(name, value)| (name, value.as_int()))
            .collect();
        assert_eq!(seen, [("a", Ok(3)), ("b", Ok(2)), ("a", Ok(1))]);
        assert_eq!(last_of("b", &scope), Some(1));
        assert_eq!(last_of("a", &scope), Some(2));
        assert_eq!(last_of("c", &scope), None);
    }

    #[test]
    fn what_was_touched_last_and_what_is_new_is_measured() {
        let (mut account, bounds) = account();
        let mut scope = Scope::new();
        let text = |length: usize| "x".repeat(length);
        scope.push("a", text(1_000)).push("b", 1_i64);
        account.touch("a", 2, &scope, 0, 1, &bounds).expect("small");
        let before = account.total;
        assert!(before > 1_000);
        scope.set_value("a", text(5_000));
        scope.push("c", text(2_000));
        account.touch("b", 0, &scope, 0, 1, &bounds).expect("small");
        assert_eq!(account.total, before + 4_000 + 2_000 + 2 * OWN + ELEMENT);
        // one that is in another's place is new
        scope.rewind(2);
        account.define(&scope, 0, 1, &bounds).expect("small");
        assert_eq!(account.total, before + 4_000);
        scope.push("d", text(1_000));
        account.define(&scope, 0, 1, &bounds).expect("small");
        assert_eq!(account.total, before + 4_000 + 1_000 + 2 * OWN + ELEMENT);
        // a function's variables are gone with it
        account.touch("a", 0, &scope, 2, 1, &bounds).expect("small");
        account.define(&scope, 0, 1, &bounds).expect("small");
        assert_eq!(account.total, before + 4_000 + 1_000 + 2 * OWN + ELEMENT);
    }

    #[test]
    fn a_value_within_another_counts_before_it_is_copied() {
        let (mut account, bounds) = account();
        let mut scope = Scope::new();
        let texts: Array = (0..900).map(|_| Dynamic::from("x".repeat(100))).collect();
        scope.push("a", texts);
        let error = account.touch("a", 1, &scope, 0, 1, &bounds).unwrap_err();
        assert!(
            matches!(*error, EvalAltResult::ErrorTerminated(..)),
            "{error}"
        );
    }
}
