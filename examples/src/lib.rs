//! What the examples share: files read and written with their checksum, and a bar that shows how
//! far it is. The programs themselves stand beside this folder.

mod checked;

pub use checked::{Checked, Sum, bar};
