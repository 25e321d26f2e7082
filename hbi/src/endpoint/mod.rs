//! The two ends of a connection as applications use them: posting conversations, hosting
//! conversations, and the streams and objects that travel in their values.
//!
//! Owns the two borders of a connection: [`Link`], which a connection of any wire implements, and
//! [`Landing`], which the hosting environment implements.

mod caller;
mod carried;
mod conversation;
mod data;
mod hosting;
mod items;
mod link;
mod object;
mod posting;
mod running;
mod script;
mod trace;

pub use caller::{Caller, Carry, Current, Origin};
pub(crate) use carried::DATA_BEHIND;
pub use carried::{Carried, Inlet, Messages, Outlet};
pub use conversation::{Receiving, Sending, Working};
pub use data::Data;
pub use hosting::{Augmented, Cancellation, HoCo, Hosted};
pub use items::{Items, ItemsSender};
pub(crate) use link::unbudgeted;
pub use link::{
    Arrived, BoxFuture, CoNumber, Encoding, Holds, Landed, Landing, Link, LinkInfo, Message,
    PlaceInLine, Prepared, Received, Request, Written,
};
pub use object::{Object, RemoteObject};
pub use posting::{PoCo, PostingEnd};
pub(crate) use posting::{deadline, now};
pub(crate) use running::caught;
pub use running::run_conversation;
pub use script::Script;
pub use trace::TraceContext;
pub(crate) use trace::{Posted, hosted_span};
