//! The hosting environment: what a peer exposes, and how scripts of the other land in it.

mod artifacts;
mod augment;
mod bounds;
mod describe;
mod environment;
#[cfg(feature = "script")]
mod free;
mod function;
mod hosting_env;
mod incoming;
mod kept;
mod landing;
mod layer;
mod python;
mod reactive;
#[cfg(feature = "script")]
mod script;
mod service;
mod share;
mod sources;
mod straight;
mod uncancelled;
mod unchecked;
mod within;
mod written;

pub use artifacts::{Artifacts, Outcome};
pub use bounds::Bounds;
pub use describe::{Described, DescribedKind, Description};
pub(crate) use environment::{Environment, Hooks};
pub use function::{AsyncFunction, Function};
pub use hosting_env::HostingEnv;
pub use incoming::{Args, Incoming, IntoFailure};
pub use kept::Kept;
pub(crate) use landing::EnvLanding;
pub use layer::{HostedCall, Layer};
pub(crate) use reactive::Reactive;
pub use service::{Constructor, Land, Method, Param, Service, Shape, Table, Travels, travels};
