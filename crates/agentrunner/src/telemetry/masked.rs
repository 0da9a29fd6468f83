//! A writer of lines that takes known secrets out.

use std::io::Write;

use services::redact::Redactor;

/// Each call writes whole lines, so that no secret is cut in two.
pub(super) struct Masked<W> {
    out: W,
    redactor: Redactor,
}

impl<W: Write> Masked<W> {
    pub(super) fn new(out: W, redactor: &Redactor) -> Self {
        Self {
            out,
            redactor: redactor.clone(),
        }
    }
}

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(&self.redactor.mask_bytes(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
