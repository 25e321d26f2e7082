//! Typed Hosting Based Interface.

pub mod env;
mod error;
pub mod value;

pub use error::{Blame, Error, Failure, Kind, Place, Result};
