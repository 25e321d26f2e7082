//! Bytes on their way to the transport: what is written, and large pieces that are not copied.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Bytes of frames that are copied from one buffer to the next: of more the buffers change places.
pub(super) const FEW: usize = 1 << 10;

/// Bytes to be written next, in order. Large payloads stand in it by reference.
#[derive(Debug, Default)]
pub struct Output {
    buffer: Vec<u8>,
    /// Written so far of `buffer`.
    at: usize,
    /// Pieces and the place in `buffer` before which each goes.
    pieces: std::collections::VecDeque<(usize, Bytes)>,
}

impl Output {
    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.at == self.buffer.len() && self.pieces.is_empty()
    }

    /// Takes what stands in a buffer of frames. Only when [`Self::is_empty`].
    pub(super) fn take(&mut self, frames: &mut Vec<u8>) {
        debug_assert!(
            self.is_empty(),
            "frames that were not written would be lost"
        );
        self.buffer.clear();
        self.at = 0;
        // the output is shared by many connections, and has room: a few frames leave theirs where it is
        if frames.len() <= FEW {
            self.buffer.append(frames);
        } else {
            std::mem::swap(&mut self.buffer, frames);
        }
    }

    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(super) fn piece(&mut self, piece: Bytes) {
        self.pieces.push_back((self.buffer.len(), piece));
    }

    /// Bytes of memory its buffer takes.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The single run of bytes that all of the output is, if there are no pieces.
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then(|| &self.buffer[self.at..])
    }

    /// The bytes to write, in order, as many runs as there is room for; returns how many.
    pub fn slices<'a>(&'a self, runs: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        let mut from = self.at;
        for (before, piece) in &self.pieces {
            if from < *before {
                if n == runs.len() {
                    return n;
                }
                runs[n] = IoSlice::new(&self.buffer[from..*before]);
                n += 1;
                from = *before;
            }
            if n == runs.len() {
                return n;
            }
            runs[n] = IoSlice::new(piece);
            n += 1;
        }
        if from < self.buffer.len() && n < runs.len() {
            runs[n] = IoSlice::new(&self.buffer[from..]);
            n += 1;
        }
        n
    }

    /// Counts `n` bytes as written.
    pub fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let before = self
                .pieces
                .front()
                .map_or(self.buffer.len(), |(before, _)| *before);
            let plain = (before - self.at).min(n);
            self.at += plain;
            n -= plain;
            if n > 0 {
                let Some((_, piece)) = self.pieces.front_mut() else {
                    return;
                };
                let taken = piece.len().min(n);
                piece.advance(taken);
                n -= taken;
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
            }
        }
    }
}
