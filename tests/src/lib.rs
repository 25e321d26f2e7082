//! What tests of the whole system share: a service with a method of every shape, and pairs of peers
//! over each transport, and certificates.

pub mod authority;
pub mod lossy;
#[cfg(feature = "tun")]
pub mod mirror;
pub mod pair;
pub mod raw;
pub mod work;
