//! Drives a text connection: one task reads and lands in step with the wire, writes what goes out, and
//! looks at the time; the endpoints see a link like any other.

mod conversation;
mod driver;
mod link;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use driver::TextDriver;
pub(crate) use link::TextLink;
