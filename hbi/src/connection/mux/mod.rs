//! The mux wire over a byte stream: the state that endpoints and the task of a connection share
//! (`link`), the task that moves bytes (`driver`) and when time alone wakes it (`alarm`), what arrives
//! and how it lands (`landing`, `work`).

mod alarm;
mod driver;
mod landing;
mod link;
mod scratch;
mod spin;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use driver::Driver;
pub(crate) use link::MuxLink;
