//! The memory the host has left, where the system reports it, and allocations that fail with an
//! error.
//!
//! Linux overcommits: an allocation that is too large succeeds, and the kernel kills the process
//! when it touches the pages. So the need is compared with the available memory before anything is
//! allocated. Where the system does not report it (macOS, Windows), only an allocator's refusal is
//! caught.

use std::fs;
use std::path::Path;

use memmap2::MmapMut;

use crate::error::{Error, ErrorKind, Result};
use crate::gpu::executor::LESS_MEMORY;

/// Smaller needs skip the check.
const ASK_FROM_BYTES: u64 = 64 << 20;

/// Bytes that can be allocated without swapping: the kernel's estimate, within the limits of the
/// process's control group and of those above it (cgroup v1 and v2). `None` if the system does not
/// report it.
pub fn available_host_bytes() -> Option<u64> {
    let whole = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?.checked_mul(1024)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups(&own).into_iter().filter_map(|group| group.free_bytes(Path::new(GROUPS)));
    Some(limits.fold(whole, u64::min))
}

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// A control group that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// Below [`GROUPS`].
    path: String,
    /// Whether it is one of version 1, whose files have other names.
    is_v1: bool,
}

/// The memory groups of a process from its `/proc/self/cgroup`: its own and those above it. In a
/// container the path may be that of the host, and the root of the mount is the container's.
fn groups(own: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let is_v1 = controllers.split(',').any(|c| c == "memory");
        if !is_v1 && !controllers.is_empty() {
            continue;
        }
        let mount = if is_v1 { "memory" } else { "" };
        for path in Path::new(path).ancestors() {
            let path = format!("{mount}{}", path.display());
            found.push(Group { path: path.trim_matches('/').to_string(), is_v1 });
        }
    }
    found
}

impl Group {
    /// Bytes that its limit leaves; `None` without a limit or without the group's files.
    fn free_bytes(&self, mount: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(mount.join(&self.path).join(name)).ok();
        let [max, current] = match self.is_v1 {
            true => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            false => ["memory.max", "memory.current"],
        };
        group_bytes(&read(max)?, &read(current)?, &read("memory.stat")?)
    }
}

/// The number after the name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Bytes that a control group has left: its limit minus its use, not counting cached files. `None`
/// without a limit.
fn group_bytes(max: &str, current: &str, stat: &str) -> Option<u64> {
    let (max, current): (u64, u64) = (max.trim().parse().ok()?, current.trim().parse().ok()?);
    let cached = field(stat, "inactive_file")? + field(stat, "active_file")?;
    Some(max.saturating_sub(current.saturating_sub(cached)))
}

/// Fails if `need_bytes` more bytes of host memory are known not to fit beside `kept_bytes` of pages
/// of files, which the system counts as available.
pub fn check_host_memory(need_bytes: u64, kept_bytes: u64) -> Result<()> {
    if need_bytes < ASK_FROM_BYTES {
        return Ok(());
    }
    check_room(need_bytes, available_host_bytes().map(|bytes| bytes.saturating_sub(kept_bytes)))
}

/// Like [`check_host_memory`], for a given number of available bytes, if known.
pub(super) fn check_room(need_bytes: u64, available_bytes: Option<u64>) -> Result<()> {
    match available_bytes {
        Some(available) if need_bytes > available => Err(out_of_memory(need_bytes, &size(available))),
        _ => Ok(()),
    }
}

/// `len` equal values, or an error if the allocator refuses.
pub(super) fn filled<T: Copy>(value: T, len: usize) -> Result<Vec<T>> {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    let mut v = Vec::new();
    v.try_reserve_exact(len).map_err(|_| out_of_memory(bytes, "less"))?;
    v.resize(len, value);
    Ok(v)
}

/// `len` words that are zero, in large pages where the system has them, or an error if it refuses.
pub(super) fn zeroed_pages(len: usize) -> Result<MmapMut> {
    let bytes = len.saturating_mul(4);
    let pages = MmapMut::map_anon(bytes).map_err(|_| out_of_memory(bytes as u64, "less"))?;
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage); // an older kernel has small pages
    Ok(pages)
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

fn out_of_memory(need_bytes: u64, available: &str) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "this takes {} of memory beyond what is in use and the machine has {available} left: {LESS_MEMORY}",
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
        let version_1 = "12:memory:/user/run\n11:cpu,cpuacct:/other\n0::/user\n";
        let found: Vec<(String, bool)> = groups(version_1).into_iter().map(|g| (g.path, g.is_v1)).collect();
        let expected =
            [("memory/user/run", true), ("memory/user", true), ("memory", true), ("user", false), ("", false)];
        assert_eq!(found, expected.map(|(path, is_v1)| (path.to_string(), is_v1)));
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("memory/user")).unwrap();
        for (file, text) in [("limit_in_bytes", "1000\n"), ("usage_in_bytes", "800\n"), ("stat", stat)] {
            fs::write(dir.path().join(format!("memory/user/memory.{file}")), text).unwrap();
        }
        let free: Vec<_> = groups(version_1).iter().filter_map(|group| group.free_bytes(dir.path())).collect();
        assert_eq!(free, [450]);
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
        let e = zeroed_pages(usize::MAX).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory, "nor where the system does");
        assert!(zeroed_pages(5000).unwrap().iter().all(|byte| *byte == 0));
    }
}
