//! Peer-script as it is prepared for the way: text and parameters, numbers for texts, and the
//! recogniser of straight lines, which need no interpreter.

mod excerpt;
mod interner;
pub mod python;
mod straight;
mod text;
mod words;

pub use excerpt::excerpt;
pub use interner::{Interned, Interner, SCRATCH};
pub use straight::{Callee, Operand, Step, Straight};
pub(crate) use text::parameter;
pub use text::{StubText, Text};
pub(crate) use words::{refuse_count, refuse_name};
