//! The bounds of one landing: what a stranger's script may use up.

use std::time::Duration;

/// How much one landing may use. The defaults are safe for peers that are not trusted.
///
/// What hits a bound ends its own conversation with an error that names the bound.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// Bytes of a script's source. Default 16 KiB: parsing is not counted in operations, and this
    /// much takes at most some 20 ms.
    pub source: usize,
    /// Bytes of the sources that one peer has interned here, in all. Default 2 MiB.
    pub sources: usize,
    /// Operations of the interpreter. Default 100,000.
    pub operations: u64,
    /// Script functions that call each other. Default 16.
    pub call_depth: usize,
    /// Expressions nested in each other. Default 32.
    pub expression_depth: usize,
    /// Bytes of one string. Default 16 KiB.
    pub string: usize,
    /// Elements of one array. Default 1,000.
    pub array: usize,
    /// Entries of one map. Default 500.
    pub map: usize,
    /// Bytes that the values of a script may take in all. Default 8 MiB.
    pub memory: usize,
    /// Time from the start of a script to its end, waiting included. Default 30 s.
    pub wall_clock: Duration,
    /// Calls of exposed functions. Default 10,000.
    pub calls: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            source: 16 << 10,
            sources: 2 << 20,
            operations: 100_000,
            call_depth: 16,
            expression_depth: 32,
            string: 16 << 10,
            array: 1_000,
            map: 500,
            memory: 8 << 20,
            wall_clock: Duration::from_secs(30),
            calls: 10_000,
        }
    }
}
