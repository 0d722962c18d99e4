//! A dispatch check: one dispatch with its inputs and the outputs that its f64 reference expects.
//!
//! A check runs on the recorded buffers. It can also run guarded, in buffers of its own that expose
//! more faults: memory to be written is poisoned, every binding is longer than the dispatch was
//! given and poisoned past the end, and a one-axis grid that the kernel can unfold is folded over
//! two axes. This finds kernels that read or write outside their data, skip an element or rely on a
//! one-axis grid. A walk (`walk.rs`) makes one check per dispatch.

use std::sync::Arc;

use super::mismatch::{Fault, Judge, Mismatch};
use crate::error::Result;
use crate::gpu::{Access, Buffer, CpuExecutor, Dispatch, ELEMENT_ALIGNMENT, Executor, Features, Kind, Recording, Span};

/// Poison of written real memory: a NaN that no arithmetic produces.
const POISON: u32 = 0x7fc0_dead;
/// Poison past the end of read-only reals: another NaN, so that copying it into memory that should
/// stay untouched is noticed.
pub const READ_POISON: u32 = 0x7fc0_beef;
/// Poison past the end of written reals: a number, since adding to a NaN or scaling it may not
/// change its bits.
const WRITTEN_GUARD: u32 = 0x449a_5225;
/// Poison of words: larger than any table, but small enough that a loop up to it does not hang a
/// device.
pub const POISON_WORD: u32 = 0x0001_0001;
/// Poisoned elements past the end of each binding.
pub const GUARD: usize = ELEMENT_ALIGNMENT;

/// The grid of a guarded run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// The recorded grid.
    Recorded,
    /// One axis folded over two, if the kernel can unfold it.
    Folded,
}

/// The content of one buffer.
#[derive(Clone, Debug)]
enum Content {
    Real(Vec<f64>),
    Words(Vec<u32>),
}

/// One dispatch with its inputs and the outputs of its reference.
#[derive(Clone, Debug)]
pub struct DispatchCheck {
    /// The dispatch; its buffers are persistent.
    pub dispatch: Dispatch,
    /// Index among the commands of its recording.
    pub command: usize,
    /// By binding; `None` if the dispatch only writes it.
    before: Arc<[Option<Content>]>,
    /// By binding; `None` if the dispatch only reads it.
    after: Arc<[Option<Content>]>,
}

/// The content of each written buffer after a run, as bits.
pub type Written = Vec<Vec<u32>>;

impl DispatchCheck {
    /// Reads the inputs of a dispatch from the device and computes the outputs with its f64
    /// reference.
    pub fn capture(device: &mut dyn Executor, dispatch: &Dispatch, command: usize) -> Result<Self> {
        let mut reference = CpuExecutor::<f64>::new();
        let mut before = Vec::new();
        for (span, binding) in dispatch.spans.iter().zip(dispatch.kernel.bindings) {
            before.push(match (binding.access, span.kind()) {
                (Access::Write, _) => None,
                (_, Kind::Real) => Some(Content::Real(device.read_f64(span)?)),
                _ => Some(Content::Words(device.read_words(span)?)),
            });
            match &before[before.len() - 1] {
                Some(Content::Real(x)) => reference.write_f64(span, x)?,
                Some(Content::Words(x)) => reference.write_words(span, x)?,
                None => {}
            }
        }
        reference.run(&Recording::of(dispatch.clone()))?;
        let mut after = Vec::new();
        for (span, binding) in dispatch.spans.iter().zip(dispatch.kernel.bindings) {
            after.push(match (binding.access, span.kind()) {
                (Access::Read, _) => None,
                (_, Kind::Real) => Some(Content::Real(reference.read_f64(span)?)),
                _ => Some(Content::Words(reference.read_words(span)?)),
            });
        }
        Ok(Self { dispatch: dispatch.clone(), command, before: before.into(), after: after.into() })
    }

    /// The same check for each alternative of the kernel that a device with `features` can run. Run
    /// these guarded: run in place, a kernel that accumulates would start from changed values.
    pub fn alternatives(&self, features: Features) -> Vec<DispatchCheck> {
        let alternative = |(dispatch, _)| DispatchCheck { dispatch, ..self.clone() };
        self.dispatch.alternatives(features).into_iter().map(alternative).collect()
    }

    /// The dispatch as a recording on its recorded buffers.
    pub fn alone(&self) -> Recording {
        Recording::of(self.dispatch.clone())
    }

    /// Runs the dispatch on its recorded buffers and compares the result.
    pub fn run_in_place(&self, device: &mut dyn Executor) -> Result<(Vec<Mismatch>, Written)> {
        device.run(&self.alone())?;
        self.judge(device, &self.dispatch.spans, 0)
    }

    /// Runs a dispatch of the same shape (this one, or one of a modified kernel) in poisoned,
    /// guarded buffers and compares the result. References get exactly the recorded length and
    /// grid.
    pub fn run_guarded(
        &self,
        device: &mut dyn Executor,
        dispatch: &Dispatch,
        grid: Grid,
    ) -> Result<(Vec<Mismatch>, Written)> {
        let limit = device.limits().max_elements();
        let room = |s: &Span| s.len + GUARD <= limit;
        let guard = if !device.runs_references() && self.dispatch.spans.iter().all(room) { GUARD } else { 0 };
        let mut spans = Vec::new();
        for (i, span) in self.dispatch.spans.iter().enumerate() {
            let fresh = Buffer::persistent(span.buffer.label(), span.kind(), span.len + guard).span();
            self.fill(device, i, &fresh)?;
            spans.push(fresh);
        }
        let folds = grid == Grid::Folded && !device.runs_references() && dispatch.kernel.is_foldable();
        let groups = if folds { folded(dispatch.groups) } else { dispatch.groups };
        device.run(&Recording::of(Dispatch { spans: spans.clone(), groups, ..dispatch.clone() }))?;
        self.judge(device, &spans, guard)
    }

    /// Runs the check in place and guarded. Returns every mismatch, and whether the two runs differ
    /// in any bit.
    pub fn examine(&self, device: &mut dyn Executor) -> Result<Vec<Mismatch>> {
        let (mut found, first) = self.run_in_place(device)?;
        let (again, second) = self.run_guarded(device, &self.dispatch, Grid::Folded)?;
        for (mismatch, other) in found.iter_mut().zip(again) {
            if mismatch.fault.is_none() && (other.fault.is_some() || other.max_abs > mismatch.max_abs) {
                *mismatch = other;
            }
        }
        for (mismatch, (a, b)) in found.iter_mut().zip(first.iter().zip(&second)) {
            let differs = a.iter().zip(b).position(|(a, b)| a != b && ![*a, *b].contains(&POISON));
            if let (None, Some(i)) = (mismatch.fault, differs) {
                mismatch.fault = Some(Fault::NotRepeatable);
                mismatch.worst = (i, f64::from(f32::from_bits(a[i])), f64::from(f32::from_bits(b[i])));
            }
        }
        Ok(found)
    }

    fn judge(&self, device: &mut dyn Executor, spans: &[Span], guard: usize) -> Result<(Vec<Mismatch>, Written)> {
        let (mut found, mut written) = (Vec::new(), Vec::new());
        for (i, (span, binding)) in spans.iter().zip(self.dispatch.kernel.bindings).enumerate() {
            let Some(after) = &self.after[i] else { continue };
            let len = span.len - guard;
            let mut judge = Judge::new(&self.dispatch, binding.name, self.command);
            let mut bits: Vec<u32> = match after {
                Content::Real(after) => {
                    let bits: Vec<u32> = device.read_real(span)?.iter().map(|x| x.to_bits()).collect();
                    let untouched = if guard > 0 { self.untouched(i, len) } else { None };
                    judge.reals(&bits[..len], after, untouched.as_deref());
                    judge.guard(&bits[len..], WRITTEN_GUARD, len);
                    bits
                }
                Content::Words(after) => {
                    let words = device.read_words(span)?;
                    judge.words(&words[..len], after);
                    judge.guard(&words[len..], POISON_WORD, len);
                    words
                }
            };
            bits.truncate(len);
            found.push(judge.verdict());
            written.push(bits);
        }
        Ok((found, written))
    }

    /// Writes the initial content of binding `i` to the start of a longer span: poison where it is
    /// unwritten, and past the end.
    fn fill(&self, device: &mut dyn Executor, i: usize, span: &Span) -> Result<()> {
        let len = self.dispatch.spans[i].len;
        if span.kind() != Kind::Real {
            let mut words = match &self.before[i] {
                Some(Content::Words(words)) => words.clone(),
                _ => vec![POISON_WORD; len],
            };
            words.resize(span.len, POISON_WORD);
            return device.write_words(span, &words);
        }
        let mut bits = self.untouched(i, len).unwrap_or_else(|| vec![POISON; len]);
        bits.resize(span.len, if self.after[i].is_some() { WRITTEN_GUARD } else { READ_POISON });
        device.write_real(span, bytemuck::cast_slice(&bits))
    }

    /// The bits of binding `i` before the dispatch of a guarded run.
    fn untouched(&self, i: usize, len: usize) -> Option<Vec<u32>> {
        match &self.before[i] {
            Some(Content::Real(x)) => Some(x.iter().map(|&x| poisoned(x).to_bits()).collect()),
            Some(Content::Words(_)) => None,
            None => Some(vec![POISON; len]),
        }
    }
}

/// The value as f32; unwritten memory becomes poison.
fn poisoned(x: f64) -> f32 {
    if x.is_nan() { f32::from_bits(POISON) } else { x as f32 }
}

/// A one-axis grid folded over two axes; like all folded grids it may exceed the number of
/// workgroups.
fn folded(groups: [u32; 3]) -> [u32; 3] {
    match groups {
        [x, 1, 1] => [x.div_ceil(2), 2, 1],
        other => other,
    }
}
