//! The posting side of services: what stubs are made of, calls and their composition. Generated
//! code names this module only, the hosting side included.

mod alone;
mod arg;
mod call;
mod compose;
mod error;
mod exchange;
mod notify;
mod outbox;
mod post;
mod reactor;
mod scope;
mod script;
mod target;

pub use alone::{Alone, OfConnection, StandsAlone};
pub use arg::{Arg, Arguments, IntoArg};
pub use call::Call;
pub use compose::{Bundle, Numeric, all};
pub use error::{CallError, Outcome};
pub use exchange::Exchange;
pub use notify::Notify;
pub use outbox::{Outbox, Policy};
pub use post::StubMethod;
pub use reactor::{Opened, Reactor};
pub use script::ScriptCall;
pub use target::{Stub, Target};

pub use crate::value::write_literal;
pub use crate::{
    endpoint::Landed,
    env::{
        Args, Constructor, Incoming, Land, Method, Param, Service, Shape, Table, Travels, travels,
    },
};
#[doc(hidden)]
pub use serde;
