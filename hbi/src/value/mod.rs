//! Values as they travel: MessagePack bytes by serde, and the handles that stand in them.
//!
//! A handle (a stream, an object by reference) is a placeholder in the bytes that names an entry of
//! a list kept outside of them, so that a value dropped undecoded still releases its handles.

mod handle;
pub(crate) mod integer;
mod literal;
mod packed;
mod scan;
mod short;
mod take;
mod tree;

pub use handle::{Handle, Handles, deserialize_handle, serialize_handle, take_placeholder};
pub use literal::{Dialect, literal, write_literal};
pub(crate) use literal::{HANDLE_MARK, is_constructed, pack_literal_into, pack_written, transcode};
pub use packed::{Packed, ValueError, pack_bytes, unpack_from};
pub(crate) use packed::{SHARED, pack_into, unpack_short};
pub(crate) use scan::{Content, content};
pub use scan::{MAX_DEPTH, skip};
pub(crate) use short::LONGEST;
pub use short::Short;
pub use take::{array_head, array_parts};
pub use tree::Value;
