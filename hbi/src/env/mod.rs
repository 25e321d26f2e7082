//! The hosting environment: what a peer exposes, and how scripts of the other land in it.

mod artifacts;
mod bounds;

pub use artifacts::{Artifacts, Outcome};
pub use bounds::Bounds;
