//! An environment of one conversation, beside that of its connection.

use super::HostingEnv;
use crate::{PoCo, Result};

impl<S> PoCo<S> {
    /// Lets back-scripts that land in this conversation find what `env` exposes, before what the
    /// connection's environment does. Its hooks and bounds are not used: those of the connection's environment
    /// hold here, too, and so do its layers, so that `env` can have none.
    ///
    /// # Errors
    /// When a name in it is taken twice, when it has layers, and over the text wire, which cannot do this.
    ///
    /// ```
    /// # async fn f(peer: hbi::Peer) -> hbi::Result<()> {
    /// let co = peer.po().co().await?;
    /// let mut co = co.augment(hbi::HostingEnv::new().function("progress", |percent: u8| {
    ///     println!("{percent} %");
    /// }))?;
    /// co.send_code("render()").await?;
    /// # Ok(()) }
    /// ```
    pub fn augment(self, env: HostingEnv) -> Result<Self> {
        self.with_augmented(env.build_beside()?)
    }
}
