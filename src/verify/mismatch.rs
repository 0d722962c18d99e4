//! A mismatch between a device's buffer and its reference's, and the faults no tolerance excuses.

use crate::gpu::Dispatch;
use crate::kernels::case::Tolerance;

/// The value that a strict kernel leaves in the last guard element after it read past the end of a
/// buffer.
pub const READ_OUTSIDE: u32 = 0x449a_5eed;
/// Values from here on are masks (the large finite number that stands for minus infinity), not
/// data.
const MASK: f64 = 1e30;

/// Faults that no tolerance excuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A word (an index, a mask, a token) differs from the reference's.
    WrongWord,
    /// NaN, or nothing written, where the reference wrote a number.
    NotANumber,
    /// Written where the reference does not write.
    Stray,
    /// Written past the end of the data.
    Outside,
    /// Read past the end of a buffer.
    OutsideRead,
    /// Masked where the reference has data, or data where it masks.
    WrongMask,
    /// Two runs with equal inputs gave different bits.
    NotRepeatable,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Fault::WrongWord => "wrong word",
            Fault::NotANumber => "not a number, or nothing written",
            Fault::Stray => "written where the reference writes nothing",
            Fault::Outside => "written past the end of the data",
            Fault::OutsideRead => "read past the end of a buffer",
            Fault::WrongMask => "masked where the reference has data, or data where it masks",
            Fault::NotRepeatable => "two runs gave different bits",
        }
    }
}

/// The largest mismatch found in one written buffer of one dispatch.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Kernel name.
    pub kernel: String,
    /// Name of the binding.
    pub binding: &'static str,
    /// Index of the dispatch among the commands.
    pub command: usize,
    /// Largest absolute error.
    pub max_abs: f64,
    /// Largest error in units in the last place of the reference's value as f32. Near 0,
    /// cancellation makes it large even for a good kernel, so it is informative only.
    pub max_ulp: f64,
    /// Largest magnitude in the reference's buffer.
    pub scale: f64,
    /// Element with the largest error or the fault, with the device's and the reference's value.
    pub worst: (usize, f64, f64),
    /// The fault, if any; no tolerance excuses it.
    pub fault: Option<Fault>,
}

impl Mismatch {
    /// Error as a fraction of the buffer's scale; infinite if there is a fault.
    pub fn relative(&self) -> f64 {
        match (self.fault, self.max_abs) {
            (Some(_), _) => f64::INFINITY,
            (None, 0.0) => 0.0,
            (None, error) => error / self.scale.max(f64::MIN_POSITIVE),
        }
    }
}

impl Tolerance {
    /// Whether the mismatch is within the tolerance.
    pub fn allows(&self, d: &Mismatch) -> bool {
        d.fault.is_none() && d.max_abs <= self.absolute + self.relative * d.scale
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (i, device, reference) = self.worst;
        let (kernel, binding) = (&self.kernel, self.binding);
        write!(
            f,
            "command {}: {kernel} wrote {binding}[{i}] = {device:e}, its reference {reference:e} ",
            self.command
        )?;
        match self.fault {
            Some(fault) => write!(f, "({})", fault.text()),
            None => write!(f, "(relative error {:.2e}, {:.1} ULP)", self.relative(), self.max_ulp),
        }
    }
}

/// Distance between adjacent f32 values at `x`.
fn ulp(x: f64) -> f64 {
    let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - f64::from(f32::MANTISSA_DIGITS - 1)).exp2()
}

/// Compares the two buffers of one binding.
pub(super) struct Judge(Mismatch);

impl Judge {
    pub(super) fn new(dispatch: &Dispatch, binding: &'static str, command: usize) -> Self {
        let kernel = dispatch.kernel.name();
        let (max_abs, max_ulp, scale, worst, fault) = (0.0, 0.0, 0.0, (0, 0.0, 0.0), None);
        Self(Mismatch { kernel, binding, command, max_abs, max_ulp, scale, worst, fault })
    }

    pub(super) fn verdict(self) -> Mismatch {
        self.0
    }

    /// Records the first fault.
    fn fault(&mut self, fault: Fault, at: (usize, f64, f64)) {
        if self.0.fault.is_none() {
            self.0.fault = Some(fault);
            self.0.worst = at;
        }
    }

    /// Compares reals. NaN in the reference's buffer marks memory that it does not write: there the
    /// device's bits must still be `untouched`, if known.
    pub(super) fn reals(&mut self, ours: &[u32], theirs: &[f64], untouched: Option<&[u32]>) {
        for (i, (&bits, &reference)) in ours.iter().zip(theirs).enumerate() {
            let value = f64::from(f32::from_bits(bits));
            if reference.is_nan() {
                if untouched.is_some_and(|u| u[i] != bits) {
                    self.fault(Fault::Stray, (i, value, reference));
                }
                continue;
            }
            if reference.abs() >= MASK || value.abs() >= MASK && value.is_finite() {
                // Excluded from the scale, which would otherwise excuse any error in the data next
                // to it.
                let near = (value - reference).abs() <= 1e-6 * reference.abs(); // false for NaN
                let right = near || value == reference; // also if both are infinite
                if !right {
                    self.fault(Fault::WrongMask, (i, value, reference));
                }
                continue;
            }
            self.0.scale = self.0.scale.max(reference.abs());
            if !value.is_finite() {
                self.fault(Fault::NotANumber, (i, value, reference));
                continue;
            }
            let error = (value - reference).abs();
            self.0.max_ulp = self.0.max_ulp.max(error / ulp(reference));
            if error > self.0.max_abs {
                self.0.max_abs = error;
                if self.0.fault.is_none() {
                    self.0.worst = (i, value, reference);
                }
            }
        }
    }

    /// Compares words exactly.
    pub(super) fn words(&mut self, ours: &[u32], theirs: &[u32]) {
        for (i, (&a, &b)) in ours.iter().zip(theirs).enumerate().filter(|(_, (a, b))| a != b) {
            self.0.max_abs = self.0.max_abs.max(f64::from(a.abs_diff(b)));
            self.fault(Fault::WrongWord, (i, f64::from(a), f64::from(b)));
        }
    }

    /// Checks that the elements past the data, from index `first`, still hold `poison`.
    pub(super) fn guard(&mut self, behind: &[u32], poison: u32, first: usize) {
        if behind.last() == Some(&READ_OUTSIDE) {
            self.fault(Fault::OutsideRead, (first, f64::NAN, f64::NAN));
        }
        if let Some(i) = behind.iter().position(|&x| x != poison) {
            self.fault(Fault::Outside, (first + i, f64::from(f32::from_bits(behind[i])), f64::NAN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ours: &[f32], theirs: &[f64]) -> Mismatch {
        let (max_abs, max_ulp, scale, worst) = (0.0, 0.0, 0.0, (0, 0.0, 0.0));
        let kernel = String::new();
        let mut judge =
            Judge(Mismatch { kernel, binding: "x", command: 0, max_abs, max_ulp, scale, worst, fault: None });
        let bits: Vec<u32> = ours.iter().map(|x| x.to_bits()).collect();
        judge.reals(&bits, theirs, None);
        judge.verdict()
    }

    #[test]
    fn a_mask_does_not_excuse_the_data_beside_it() {
        let right = judged(&[1.0, -3.0e38], &[1.0, -3.0e38]);
        assert_eq!((right.fault, right.scale, right.max_abs), (None, 1.0, 0.0));
        assert_eq!(judged(&[1.5, -3.0e38], &[1.0, -3.0e38]).max_abs, 0.5);
        assert_eq!(judged(&[1.0, -4.0], &[1.0, -3.0e38]).fault, Some(Fault::WrongMask));
        assert_eq!(judged(&[-3.0e38, 1.0], &[1.0, 1.0]).fault, Some(Fault::WrongMask));
        assert_eq!(judged(&[f32::NAN], &[-3.0e38]).fault, Some(Fault::WrongMask));
        assert_eq!(judged(&[f32::NAN], &[1.0]).fault, Some(Fault::NotANumber));
        assert_eq!(judged(&[f32::INFINITY], &[1.0]).fault, Some(Fault::NotANumber));
    }

    #[test]
    fn units_in_the_last_place_are_those_of_f32() {
        assert_eq!(ulp(1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(-1.99), f64::from(f32::EPSILON));
        assert_eq!(ulp(0.0), f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON));
    }
}
