//! Free peer-script: Rhai, whose waits suspend a fiber instead of holding a thread.
//!
//! Rhai has to know the functions a script calls before it runs. The names that a script uses are
//! found in its text, so each compiled script has an engine of its own that knows these and no
//! others; what all engines share costs nothing to add.

mod account;
mod calls;
mod convert;
mod engine;
mod library;
mod names;
mod property;
mod run;

pub(super) use library::is_built_in;
pub(super) use property::property;
pub(super) use run::{Compiled, Room};
