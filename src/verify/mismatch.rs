//! How far a device's buffer is from its reference's, and the faults that no tolerance excuses.

use crate::gpu::Dispatch;
use crate::kernels::case::Tolerance;

/// What a strict kernel leaves in the last of the guarding elements when it has read behind the end of a buffer.
pub const READ_OUTSIDE: u32 = 0x449a_5eed;
/// From here on a value is a mask (the large finite number that stands for minus infinity), not data.
const MASK: f64 = 1e30;

/// What is wrong whatever the size of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A word (an index, a mark, a token) is not the reference's.
    WrongWord,
    /// Not a number, or nothing written, where the reference wrote a number.
    NotANumber,
    /// Written where the reference writes nothing.
    Stray,
    /// Written behind the end of the data.
    Outside,
    /// Read behind the end of some buffer.
    OutsideRead,
    /// Masked where the reference has data, or the other way round.
    WrongMask,
    /// Two runs on the same inputs gave different bits.
    NotRepeatable,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Fault::WrongWord => "a wrong word",
            Fault::NotANumber => "not a number, or nothing written",
            Fault::Stray => "written where the reference writes nothing",
            Fault::Outside => "written behind the end of the data",
            Fault::OutsideRead => "read behind the end of a buffer",
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
    /// Position of the dispatch among the commands.
    pub command: usize,
    /// Largest absolute error.
    pub max_abs: f64,
    /// Largest error in units of the last place of the reference's value as f32. Where the true value is near 0, cancellation makes this
    /// large however good the kernel is, so it informs and does not decide.
    pub max_ulp: f64,
    /// Largest magnitude in the reference's buffer.
    pub scale: f64,
    /// Element with the largest error or the fault, the device's value there and the reference's.
    pub worst: (usize, f64, f64),
    /// What no tolerance excuses.
    pub fault: Option<Fault>,
}

impl Mismatch {
    /// Error as a fraction of the buffer's scale; infinite where there is a fault.
    pub fn relative(&self) -> f64 {
        match (self.fault, self.max_abs) {
            (Some(_), _) => f64::INFINITY,
            (None, 0.0) => 0.0,
            (None, error) => error / self.scale.max(f64::MIN_POSITIVE),
        }
    }
}

impl Tolerance {
    /// Whether a mismatch found by a walk is within the tolerance.
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

/// Distance between neighbouring f32 at `x`.
fn ulp(x: f64) -> f64 {
    let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - f64::from(f32::MANTISSA_DIGITS - 1)).exp2()
}

/// Compares the buffers that one binding names.
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

    /// The first fault stands.
    fn fault(&mut self, fault: Fault, at: (usize, f64, f64)) {
        if self.0.fault.is_none() {
            self.0.fault = Some(fault);
            self.0.worst = at;
        }
    }

    /// Compares reals. NaN in the reference's buffer is memory that it did not write: there the device's must still be `untouched`,
    /// where that is known.
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
                // Left out of the scale, which would otherwise excuse any error of the data beside it.
                let right = (value - reference).abs() <= 1e-6 * reference.abs(); // not so of a NaN
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

    /// Compares words, exactly.
    pub(super) fn words(&mut self, ours: &[u32], theirs: &[u32]) {
        for (i, (&a, &b)) in ours.iter().zip(theirs).enumerate().filter(|(_, (a, b))| a != b) {
            self.0.max_abs = self.0.max_abs.max(f64::from(a.abs_diff(b)));
            self.fault(Fault::WrongWord, (i, f64::from(a), f64::from(b)));
        }
    }

    /// The elements behind the data, `first` and on, must still hold `poison`.
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
