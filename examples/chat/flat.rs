//! Files by the flat calls alone, as chat servers written in Python and Go have them: all of a file
//! at once, checked at the end.

use std::io;

use anyhow::{bail, ensure};
use hbi::Data;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    names,
    protocol::{ChatStub, FILE},
};

/// Whether nothing but the flat calls can be relied on at an address: over the text wire the server
/// may be one that exists in Python or Go, and to call there what it has not ends the connection.
pub(crate) fn only(address: &str) -> bool {
    let address = address.parse::<hbi::Address>();
    address.is_ok_and(|address| address.is_text())
}

/// Sends a file up.
pub(crate) async fn send(
    chat: &ChatStub,
    room: &str,
    name: &str,
    (size, crc): (u64, u32),
    data: Data,
) -> anyhow::Result<()> {
    if let Some(why) = chat.upload_req(room, name, size).await? {
        bail!("{why}");
    }
    let theirs = chat.recv_file(room, name, data).await?;
    ensure!(
        theirs == crc,
        "the checksum does not match, send it again: {crc:08x} here, {theirs:08x} there"
    );
    Ok(())
}

/// Gets a file, once `started` has made the place for it of its size; answers size and checksum.
pub(crate) async fn get<W: AsyncWrite + Unpin + Send>(
    chat: &ChatStub,
    room: &str,
    name: &str,
    started: impl AsyncFnOnce(u64) -> io::Result<W>,
) -> anyhow::Result<(u64, u32, W)> {
    let mut co = chat.send_file(room, name).await?;
    let (size, message): (i64, String) = co.recv_obj().await?;
    let Ok(size) = u64::try_from(size) else {
        bail!("{message}: {}", names::shown_line(name));
    };
    ensure!(
        size <= FILE,
        "{size} bytes are too many: {FILE} at most are taken"
    );
    let mut file = started(size).await?;
    co.recv_data_exact(&mut file, size).await?;
    file.flush().await?;
    let crc = co.recv_obj().await?;
    co.wait_completed().await?;
    Ok((size, crc, file))
}
