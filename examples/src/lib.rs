//! What the examples share: files read and written with their checksum, a bar that shows how far it is,
//! and a certificate for addresses that need one. The programs themselves stand beside this folder.

mod certificate;
mod checked;

pub use certificate::options;
pub use checked::{Checked, Sum, bar, checksum};
