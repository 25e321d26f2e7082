//! An environment of one conversation, beside that of its connection.

use super::HostingEnv;
use crate::{PoCo, Result};

impl<S> PoCo<S> {
    /// Lets back-scripts that land in this conversation find what `env` exposes, before what the
    /// connection's environment does. Its hooks are not used.
    ///
    /// # Errors
    /// When a name in it is taken twice.
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
        // of the description there is one, the connection's
        let (env, _hooks) = env.withhold_description().build()?;
        Ok(self.with_augmented(env))
    }
}
