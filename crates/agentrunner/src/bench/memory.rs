//! How much memory a process holds, as Linux tells.

use std::fs;

/// The most that this process ever held, in MiB; `None` where `/proc` is not.
pub(crate) fn peak_mib() -> Option<f64> {
    field("self", "VmHWM:")
}

/// What a process holds now, in MiB; `None` where `/proc` is not.
pub(crate) fn resident_mib(pid: u32) -> Option<f64> {
    field(&pid.to_string(), "VmRSS:")
}

/// What this process holds now, in MiB.
pub(crate) fn own_mib() -> Option<f64> {
    field("self", "VmRSS:")
}

fn field(process: &str, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
