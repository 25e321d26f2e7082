//! The guide: a chapter for each thing that hbi does, every example of it run by the tests.

#![allow(missing_docs, reason = "each chapter is its documentation")]

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("composition.md")]
pub mod composition {}

#[doc = include_str!("streams.md")]
pub mod streams {}

#[doc = include_str!("conversations.md")]
pub mod conversations {}

#[doc = include_str!("reactors.md")]
pub mod reactors {}

#[doc = include_str!("scripts.md")]
pub mod scripts {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("security.md")]
pub mod security {}

#[cfg(feature = "quic")]
#[doc = include_str!("quic.md")]
pub mod quic {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("text_wire.md")]
pub mod text_wire {}
