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
    /// Bytes that the scripts which one peer has interned here take, in all, with those it gave a
    /// number before and that wait to land, or run: their texts, and what is made of them when they land
    /// first. That is reckoned with 256 for each word and sign of what the interpreter runs, 400 for each
    /// function that it calls, 2 KiB for each namespace of those, and 4 KiB; less for a straight line of
    /// calls, and nothing for one call. Default 32 MiB.
    pub sources: usize,
    /// Operations of the interpreter; a straight line of calls, which needs none, counts one for each
    /// KiB that it copies, or looks through for a field. Default 100,000.
    pub operations: u64,
    /// Script functions that call each other, at most 256. Default 16.
    ///
    /// The stack of each script that runs has room for as many, with expressions in each other in all
    /// of them: by default 1.5 MiB of address space (8 MiB in a debug build), of which only what is used
    /// takes memory.
    pub call_depth: usize,
    /// Expressions nested in each other, at most 64. Default 32.
    pub expression_depth: usize,
    /// Bytes of one string. Default 16 KiB.
    pub string: usize,
    /// Elements of one array. Default 1,000.
    pub array: usize,
    /// Entries of one map. Default 500.
    pub map: usize,
    /// Bytes of one value in a script with all that is in it, as the interpreter holds it: 16 for
    /// each element of an array, 96 for each entry of a map and at least 480 for a map, 48 for each
    /// string, array and map, and the text. Default 64 KiB.
    ///
    /// An argument or answer beyond this, or beyond [`Self::string`], [`Self::array`] or
    /// [`Self::map`], can be passed on and answered, but not looked into.
    pub value: usize,
    /// Bytes that the variables of a script may take in all. Default 8 MiB.
    ///
    /// What is in no variable yet, in argument lists, may take as much again: a script is refused
    /// if its argument lists, in all functions that are under way, could hold more than this with
    /// each value as large as [`Self::value`]. Values beyond the bounds, that are only passed on,
    /// may also take as much, and so may what the peer keeps in `env` on one connection.
    ///
    /// Of a script of the text wire it is all that was made, which is never given back before its end.
    pub memory: usize,
    /// Bytes that all scripts of one connection may hold together: their variables, the values that
    /// they pass on, and for each function under way as many values of [`Self::value`] as its
    /// argument lists could hold. Default 256 MiB. A script that has no room to begin queues, in
    /// order; one that grows beyond what is left ends, and so does one within another conversation
    /// that has no room to begin: what it would wait for may wait for it. Those of the text wire begin
    /// with nothing, and take what they come to hold.
    pub connection_memory: usize,
    /// Time from the start of a script to its end, waiting included. Default 30 s.
    pub wall_clock: Duration,
    /// Calls of exposed functions. Default 10,000.
    pub calls: u64,
    /// Scripts of one connection that run or wait at once, beside those that land within another
    /// conversation, of which there may be as many again. Default 256. More of them queue, in
    /// order. In the whole process there are at most 16,384 and 4,096. Those of the text wire need no
    /// fiber, and cannot tell what they land within: there
    /// [`Settings::conversations`](crate::Settings::conversations) bounds how many wait.
    pub fibers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            source: 16 << 10,
            sources: 32 << 20,
            operations: 100_000,
            call_depth: 16,
            expression_depth: 32,
            string: 16 << 10,
            array: 1_000,
            map: 500,
            value: 64 << 10,
            memory: 8 << 20,
            connection_memory: 256 << 20,
            wall_clock: Duration::from_secs(30),
            calls: 10_000,
            fibers: 256,
        }
    }
}
