//! The memory for a device's buffers, as far as it is known: what cannot fit is refused before it
//! runs.
//!
//! Drivers rarely refuse. Metal and DirectX take more than there is, and the work fails later or
//! crawls.

use super::adapter::AdapterReport;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::check_host_memory;
use crate::gpu::executor::LESS_MEMORY;

/// Percent of a device's own memory that buffers may take: the driver and the screen need some.
const SHARE: u64 = 95;

/// Where a device's buffers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Room {
    /// In the host's memory: software adapters, and GPUs without memory of their own.
    Host,
    /// In so many bytes of the device.
    Own(u64),
    /// Nobody says.
    #[default]
    Unknown,
}

/// Memory that a recording or an upload takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// Persistent buffers that are there.
    pub(super) held: u64,
    /// Persistent buffers that it makes.
    pub(super) new: u64,
    /// Its transients.
    pub(super) transient: u64,
    /// Slots for transients that are there.
    pub(super) slots: u64,
}

impl Room {
    /// The room of an adapter. Metal says how much its GPUs can use, also of the host's memory.
    pub(super) fn of(report: &AdapterReport) -> Self {
        Self::of_kind(report.backend, report.device_type, report.memory_bytes)
    }

    fn of_kind(backend: &str, device_type: &str, memory_bytes: Option<u64>) -> Self {
        match (memory_bytes, device_type) {
            (Some(bytes), _) if backend == "metal" => Self::Own(bytes),
            (_, "software" | "integrated") => Self::Host,
            (Some(bytes), _) => Self::Own(bytes),
            (None, _) => Self::Unknown,
        }
    }

    /// Fails if it is known that the need does not fit.
    pub(super) fn check(self, need: Need) -> Result<()> {
        match self {
            Self::Unknown => Ok(()),
            Self::Host => check_host_memory(need.new + need.transient.saturating_sub(need.slots), 0),
            Self::Own(bytes) => {
                let (total, most) = (need.held + need.new + need.transient, bytes / 100 * SHARE);
                if total > most {
                    return Err(too_much(total, most));
                }
                Ok(())
            }
        }
    }
}

fn too_much(total: u64, most: u64) -> Error {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let text = format!(
        "this takes {:.1} MiB of the device's memory with what is in use, and it has {:.1} MiB for buffers: {LESS_MEMORY}",
        mib(total),
        mib(most)
    );
    Error::of_kind(ErrorKind::OutOfMemory, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_for_its_memory_only_where_that_holds_its_buffers() {
        let known = Some(8 << 30);
        assert_eq!(Room::of_kind("vulkan", "discrete", known), Room::Own(8 << 30));
        assert_eq!(Room::of_kind("metal", "integrated", known), Room::Own(8 << 30));
        assert_eq!(Room::of_kind("vulkan", "integrated", known), Room::Host);
        assert_eq!(Room::of_kind("vulkan", "software", known), Room::Host);
        assert_eq!(Room::of_kind("dx12", "discrete", None), Room::Unknown);
        assert_eq!(Room::of_kind("metal", "discrete", None), Room::Unknown);
    }

    #[test]
    fn what_does_not_fit_beside_what_is_held_is_refused_with_both_sizes() {
        let room = Room::Own(1000 << 20);
        let need = Need { held: 500 << 20, new: 250 << 20, transient: 200 << 20, slots: 0 };
        room.check(need).expect("950 MiB are 95 percent");
        for more in [Need { held: need.held + 1, ..need }, Need { new: need.new + 1, ..need }] {
            room.check(more).unwrap_err();
        }
        let e = room.check(Need { transient: 210 << 20, ..need }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("960.0 MiB") && e.to_string().contains("950.0 MiB"), "{e}");
        Room::Unknown.check(Need { transient: u64::MAX, ..Need::default() }).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn transients_take_the_slots_that_are_there() {
        let huge = Need { transient: u64::MAX / 2, ..Need::default() };
        assert_eq!(Room::Host.check(huge).unwrap_err().kind(), ErrorKind::OutOfMemory);
        Room::Host.check(Need { slots: u64::MAX / 2, ..huge }).unwrap();
    }
}
