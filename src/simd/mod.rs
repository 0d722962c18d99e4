//! Floor 0: vectors of sixteen lanes, and functions compiled for several instruction sets.

mod byte_dots;
#[cfg(target_arch = "aarch64")]
mod byte_dots_neon;
#[cfg(target_arch = "x86_64")]
mod byte_dots_x86;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod vectorised;
mod widest;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
pub(crate) use byte_dots::HIDDEN;
pub(crate) use byte_dots::is_hidden;
pub use byte_dots::{BYTES, ByteDots};
#[cfg(target_arch = "aarch64")]
pub(crate) use byte_dots_neon::NeonDots;
#[cfg(target_arch = "x86_64")]
pub(crate) use byte_dots_x86::{Vnni256, Vnni512};
pub use lanes::{LANES, Lanes, half};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub use portable::Portable;
pub(crate) use vectorised::vectorised;
pub(crate) use widest::{widest, widest_dot_rows, widest_dots, widest_rows};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Vbmi};
