//! What tests of the whole system share: a service with a method of every shape, and pairs of peers
//! over each transport, the state machine of the mux wire alone, certificates, and a task that gives up waiting.

pub mod authority;
pub mod given_up;
pub mod lossy;
pub mod machine;
#[cfg(feature = "tun")]
pub mod mirror;
pub mod pair;
pub mod raw;
pub mod work;
