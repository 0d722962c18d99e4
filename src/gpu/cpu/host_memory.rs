//! What the host's memory can still take, where the system tells, and allocations that fail with an error.
//!
//! Linux overcommits: an allocation that is too large succeeds, and the process is killed when it touches the pages. So what
//! is needed is compared with what is there before anything is taken. Where the system does not tell (macOS, Windows), only
//! the allocator's own refusal is caught.

use std::fs;

use crate::error::{Error, ErrorKind, Result};

/// Needs below this are not worth asking the system about.
const ASK_FROM_BYTES: u64 = 64 << 20;

/// Bytes that can be allocated without pushing others out: the kernel's estimate, within the limit of a container (cgroup
/// v2). `None` where the system does not say.
pub fn available_host_bytes() -> Option<u64> {
    let whole = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?.checked_mul(1024)?;
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
    let group = || group_bytes(&read("max")?, &read("current")?, &read("stat")?);
    Some(group().map_or(whole, |own| own.min(whole)))
}

/// The number after a name that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What a control group leaves: its limit less its use, of which cached files do not count. `None` without a limit.
fn group_bytes(max: &str, current: &str, stat: &str) -> Option<u64> {
    let (max, current): (u64, u64) = (max.trim().parse().ok()?, current.trim().parse().ok()?);
    let cached = field(stat, "inactive_file")? + field(stat, "active_file")?;
    Some(max.saturating_sub(current.saturating_sub(cached)))
}

/// Refuses a need of so many more bytes of host memory where it is known not to fit.
pub fn check_host_memory(need_bytes: u64) -> Result<()> {
    if need_bytes < ASK_FROM_BYTES {
        return Ok(());
    }
    check_room(need_bytes, available_host_bytes())
}

/// As [`check_host_memory`] against a known or unknown number of bytes.
pub(super) fn check_room(need_bytes: u64, available_bytes: Option<u64>) -> Result<()> {
    match available_bytes {
        Some(available) if need_bytes > available => Err(out_of_memory(need_bytes, &size(available))),
        _ => Ok(()),
    }
}

/// `len` equal values, or an error where the allocator refuses.
pub(super) fn filled<T: Copy>(value: T, len: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    resize(&mut v, value, len)?;
    Ok(v)
}

/// Makes `v` hold `len` values, new ones equal to `value`, or fails where the allocator refuses.
pub(super) fn resize<T: Copy>(v: &mut Vec<T>, value: T, len: usize) -> Result<()> {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    v.try_reserve_exact(len.saturating_sub(v.len())).map_err(|_| out_of_memory(bytes, "less"))?;
    v.resize(len, value);
    Ok(())
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

fn out_of_memory(need_bytes: u64, available: &str) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "this takes {} of memory beyond what is in use and the machine has {available} left: take shorter texts \
             (`max_length`, `max_tokens`), a smaller `batch_size` or `chunk`, `recompute` in training, or a smaller model",
            size(need_bytes)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        let meminfo = "MemTotal:       24684092 kB\nMemFree:         5185272 kB\nMemAvailable:   20446336 kB\n";
        assert_eq!(field(meminfo, "MemAvailable:"), Some(20_446_336));
        assert_eq!(field(meminfo, "MemAvail"), None);
        let stat = "anon 500\nfile 300\ninactive_file 200\nactive_file 50\n";
        assert_eq!(group_bytes("1000\n", "800\n", stat), Some(450));
        assert_eq!(group_bytes("1000\n", "1900\n", stat), Some(0));
        assert_eq!(group_bytes("max\n", "800\n", stat), None);
        #[cfg(target_os = "linux")]
        assert!(available_host_bytes().is_some_and(|b| b > 1 << 20));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        let e = check_room(3 << 30, Some(512 << 20)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("3.0 GiB") && e.to_string().contains("512.0 MiB"), "{e}");
        check_room(3 << 30, Some(3 << 30)).unwrap();
        check_room(u64::MAX, None).unwrap();
        let e = filled(0u32, usize::MAX).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory, "no abort where the allocator refuses");
    }
}
