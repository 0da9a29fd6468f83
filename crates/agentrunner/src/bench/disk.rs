//! What the disk can do alone: the floor under every durable step.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::statistics::{ms, percentile};

const PAGE: usize = 4096;
const SAMPLES: usize = 200;

/// The median time of appending a page and making it durable, in milliseconds.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn fsync_ms(dir: &Path) -> std::io::Result<f64> {
    let path = dir.join("fsync.bench");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let page = [7u8; PAGE];
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        samples.push(ms(began.elapsed()));
    }
    drop(file);
    std::fs::remove_file(&path)?;
    Ok(percentile(&mut samples, 50.0))
}
