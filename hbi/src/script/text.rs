//! A script's text: source and names of parameters. Values never stand in it, they are bound.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU32, Ordering},
};

/// Ids of stub texts given out in this process, so that a connection finds the number of a text by
/// an index.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

/// The text of a stub's method: fixed when the program is compiled, parameters `a0`, `a1`, ...
#[derive(Debug)]
pub struct StubText {
    source: &'static str,
    parameters: usize,
    id: AtomicU32,
}

impl StubText {
    /// A text with this many parameters.
    pub const fn new(source: &'static str, parameters: usize) -> Self {
        Self {
            source,
            parameters,
            id: AtomicU32::new(0),
        }
    }

    /// The source.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// How many parameters it has.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Its index within this process.
    pub(super) fn id(&self) -> usize {
        match self.id.load(Ordering::Relaxed) {
            0 => {
                let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
                // two threads may both come here: the first to store wins
                match self
                    .id
                    .compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed)
                {
                    Ok(_) => id as usize,
                    Err(other) => other as usize,
                }
            }
            id => id as usize,
        }
    }
}

/// A script's text.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// Of a stub's method.
    Stub(&'static StubText),
    /// Put together by a composition, or written by hand.
    Free {
        /// The source.
        source: &'a str,
        /// Names of the parameters.
        parameters: &'a [Cow<'static, str>],
        /// Whether it is likely to come again, so that its first use already gives it a number.
        again: bool,
    },
}

impl Text<'_> {
    /// The source.
    pub fn source(&self) -> &str {
        match self {
            Text::Stub(text) => text.source,
            Text::Free { source, .. } => source,
        }
    }

    /// Bytes that the names of the parameters take on a wire, at most.
    pub fn parameters_len(&self) -> usize {
        match self {
            // `a0` to `a9999`, and the length of each
            Text::Stub(text) => 6 * text.parameters,
            Text::Free { parameters, .. } => parameters.iter().map(|name| 1 + name.len()).sum(),
        }
    }

    /// Names of the parameters.
    pub fn parameters(&self) -> Vec<Cow<'static, str>> {
        match self {
            Text::Stub(text) => (0..text.parameters).map(parameter).collect(),
            Text::Free { parameters, .. } => parameters.to_vec(),
        }
    }
}

/// The name of the parameter at a place of a stub's or a composed text.
pub(crate) fn parameter(index: usize) -> Cow<'static, str> {
    const NAMES: [&str; 8] = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];
    match NAMES.get(index) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("a{index}")),
    }
}
