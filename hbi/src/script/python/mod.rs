//! Peer-script as the existing Python and Go peers write it: Python's syntax, and what Go's scripts
//! have beside it.
//!
//! [`Program::parse`] reads what both or either of those peers land and that has a meaning here.
//! Where the two disagree, Python's reading holds: `//` divides, `"\x1b"` is one character, `"\/"`
//! keeps its backslash.

mod constant;
mod lexer;
mod parser;
mod syntax;
mod write;

#[cfg(test)]
mod tests;

pub use constant::read_value;
pub(crate) use constant::value_of;
pub use syntax::{Expression, Kind, Operator, Part, Program, Statement, Target};
pub(crate) use write::{is_local, write_script};
