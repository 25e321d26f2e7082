//! The CRC-32 of a file, and of what passes a reader or writer, which may move a progress bar.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use crc32fast::Hasher;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
};

/// A reader or writer that reckons the CRC-32 of what passes.
#[derive(Debug)]
pub struct Checked<T> {
    inner: T,
    hasher: Hasher,
    bar: ProgressBar,
    sum: Arc<Sum>,
}

/// What passed a [`Checked`] so far.
#[derive(Debug, Default)]
pub struct Sum {
    crc: AtomicU32,
    len: AtomicU64,
}

impl Sum {
    /// The CRC-32.
    pub fn crc(&self) -> u32 {
        self.crc.load(Ordering::Acquire)
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nothing passed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Checked<T> {
    /// Checks what passes `inner`.
    pub fn new(inner: T) -> Self {
        Self::rest(inner, 0, 0)
    }

    /// Checks what passes `inner` as the rest of something of which a part, with this CRC-32 and so
    /// many bytes, passed before.
    pub fn rest(inner: T, crc: u32, len: u64) -> Self {
        let sum = Sum {
            crc: AtomicU32::new(crc),
            len: AtomicU64::new(len),
        };
        Self {
            inner,
            hasher: Hasher::new_with_initial_len(crc, len),
            bar: ProgressBar::hidden(),
            sum: Arc::new(sum),
        }
    }

    /// Shows in a bar what passes.
    pub fn with_bar(mut self, bar: ProgressBar) -> Self {
        bar.set_position(self.sum.len());
        self.bar = bar;
        self
    }

    /// What passed so far, to be looked at when this is gone.
    pub fn sum(&self) -> Arc<Sum> {
        Arc::clone(&self.sum)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.sum
            .crc
            .store(self.hasher.clone().finalize(), Ordering::Release);
        self.sum.len.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        self.bar.inc(bytes.len() as u64);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Checked<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.count(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Checked<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.count(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The CRC-32 of a file's next bytes, so many at most; leaves the file behind them.
///
/// # Errors
/// When the file cannot be read.
pub async fn checksum(file: &mut File, len: u64) -> io::Result<u32> {
    let mut checked = Checked::new(file.take(len));
    tokio::io::copy(&mut checked, &mut tokio::io::sink()).await?;
    Ok(checked.sum.crc())
}

/// A bar for so many bytes. It shows where there is a terminal.
pub fn bar(what: &'static str, len: u64) -> ProgressBar {
    let style = "{msg:>10} [{bar:30}] {bytes:>10} of {total_bytes} at {bytes_per_sec}";
    let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(len)
        .with_message(what)
        .with_style(style.progress_chars("=> "))
}
