//! Peer-script of the text wire in an environment: Python's syntax, run step by step.
//!
//! A parsed script is compiled to steps for a stack of values, so that it can wait at a call without
//! a fiber. Every bound of [`Bounds`](super::Bounds) holds.

mod builtin;
mod compile;
mod operate;
mod run;

#[cfg(test)]
mod tests;

pub(crate) use compile::Code;
pub(crate) use run::{Print, Unknown};
