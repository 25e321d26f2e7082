//! What the compiler cannot check: all of the library's unsafe code, and nothing else.

#![allow(unsafe_code)]

#[cfg(feature = "script")]
pub(super) mod fiber;
mod slot;

pub(super) use slot::Slot;
