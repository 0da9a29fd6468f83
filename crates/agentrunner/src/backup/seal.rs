//! The end of the file: the SHA-256 of every byte before it, in a frame that readers of zstd skip.
//!
//! It shows what a disk or a copy has changed. It does not show what somebody has changed who can write the file: for that,
//! keep the digest that `backup` prints elsewhere, and give it to `restore --sha256`.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::hex;

/// A skippable frame of zstd, and how long its content is.
const FRAME: [u8; 8] = [0x5a, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
/// The whole seal.
pub(super) const LENGTH: u64 = 40;

/// Hashes what is written through it.
pub(super) struct Sealing<W> {
    inner: W,
    sum: Sha256,
    written: u64,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            sum: Sha256::new(),
            written: 0,
        }
    }

    /// Writes the seal; answers the writer, how much was written and the digest of all of it.
    pub(super) fn finish(mut self) -> io::Result<(W, u64, String)> {
        let sum = self.sum.clone().finalize();
        self.write_all(&FRAME)?;
        self.write_all(&sum)?;
        self.inner.flush()?;
        Ok((self.inner, self.written, hex(&self.sum.finalize())))
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads a file of this length to its end; answers the digest of all of it, or nothing when the seal is not right.
pub(super) fn check(mut file: impl Read, length: u64) -> io::Result<Option<String>> {
    let Some(before) = length.checked_sub(LENGTH) else {
        return Ok(None);
    };
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut body = (&mut file).take(before);
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sum.update(buffer.get(..read).unwrap_or_default());
    }
    let mut seal = Vec::new();
    file.take(LENGTH + 1).read_to_end(&mut seal)?;
    let mut expected = FRAME.to_vec();
    expected.extend_from_slice(&sum.clone().finalize());
    if seal != expected {
        return Ok(None);
    }
    sum.update(&seal);
    Ok(Some(hex(&sum.finalize())))
}
