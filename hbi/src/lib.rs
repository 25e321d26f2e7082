//! Typed Hosting Based Interface.

mod connection;
pub mod endpoint;
pub mod env;
mod error;
pub mod script;
pub mod value;
pub mod wire;

pub use endpoint::{
    Caller, Data, HoCo, Items, ItemsSender, PoCo, PostingEnd, Receiving, Sending, Working,
};
pub use error::{Blame, Error, Failure, Kind, Place, Result};
