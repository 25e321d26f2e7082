//! Typed Hosting Based Interface.

pub mod env;
mod error;
pub mod value;
pub mod wire;

pub use error::{Blame, Error, Failure, Kind, Place, Result};
