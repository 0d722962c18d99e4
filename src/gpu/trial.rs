//! A trial: one dispatch alone, with what its buffers held before and, by its f64 twin, must hold after.
//!
//! A trial is judged where it was recorded, and can be run again in buffers of its own that are harder on a kernel: memory that
//! it must write is poisoned, every binding is longer than what the dispatch was given, with poison behind it, and a grid
//! that unfolds over two axes is folded although it would fit one. So a kernel that reads or writes outside its data, leaves
//! an element out or counts on a grid of one axis is found out. A walk (`walk.rs`) makes one trial of every dispatch.

use super::difference::{Difference, Fault, Judge};
use super::{Access, Buffer, CpuExecutor, Dispatch, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span};
use crate::error::Result;

/// Poison of real memory: a NaN that no arithmetic yields.
const POISON: u32 = 0x7fc0_dead;
/// Poison of words: far beyond any table, but not so far that a loop up to it hangs a device.
const POISON_WORD: u32 = 0x0001_0001;
/// Poisoned elements behind each binding.
const GUARD: usize = ELEMENT_ALIGNMENT;

/// What one buffer holds.
#[derive(Clone, Debug)]
enum Content {
    Real(Vec<f64>),
    Words(Vec<u32>),
}

/// One dispatch with its inputs and the outputs of its twin.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The dispatch; its buffers are persistent.
    pub dispatch: Dispatch,
    /// Position among the commands of its recording.
    pub command: usize,
    /// By binding; none where the dispatch only writes.
    before: Vec<Option<Content>>,
    /// By binding; none where the dispatch only reads.
    after: Vec<Option<Content>>,
}

/// What a run of a trial left in each written buffer, as bits.
pub type Written = Vec<Vec<u32>>;

impl Trial {
    /// Reads the inputs of a dispatch from the device and asks its f64 twin for the outputs.
    pub fn capture(device: &mut dyn Executor, dispatch: &Dispatch, command: usize) -> Result<Self> {
        let mut twin = CpuExecutor::<f64>::new();
        let mut before = Vec::new();
        for (span, binding) in dispatch.spans.iter().zip(dispatch.kernel.bindings) {
            before.push(match (binding.access, span.kind()) {
                (Access::Write, _) => None,
                (_, Kind::Real) => Some(Content::Real(device.read_f64(span)?)),
                _ => Some(Content::Words(device.read_words(span)?)),
            });
            match &before[before.len() - 1] {
                Some(Content::Real(x)) => twin.write_f64(span, x)?,
                Some(Content::Words(x)) => twin.write_words(span, x)?,
                None => {}
            }
        }
        twin.run(&Recording::of(dispatch.clone()))?;
        let mut after = Vec::new();
        for (span, binding) in dispatch.spans.iter().zip(dispatch.kernel.bindings) {
            after.push(match (binding.access, span.kind()) {
                (Access::Read, _) => None,
                (_, Kind::Real) => Some(Content::Real(twin.read_f64(span)?)),
                _ => Some(Content::Words(twin.read_words(span)?)),
            });
        }
        Ok(Self { dispatch: dispatch.clone(), command, before, after })
    }

    /// The dispatch as a recording, on the buffers that it was recorded with.
    pub fn alone(&self) -> Recording {
        Recording::of(self.dispatch.clone())
    }

    /// Runs the dispatch on the buffers that it was recorded with, and judges what they hold then.
    pub fn run_in_place(&self, device: &mut dyn Executor) -> Result<(Vec<Difference>, Written)> {
        device.run(&self.alone())?;
        self.judge(device, &self.dispatch.spans, 0)
    }

    /// Runs a dispatch of the same shape (this one, or one of a changed kernel) in poisoned, guarded buffers, folded where its
    /// grid can be, and judges it. Twins get memory of exactly the recorded length and grid.
    pub fn run_guarded(&self, device: &mut dyn Executor, dispatch: &Dispatch) -> Result<(Vec<Difference>, Written)> {
        let limit = device.limits().max_elements();
        let room = |s: &Span| s.len + GUARD <= limit;
        let guard = if !device.runs_twins() && self.dispatch.spans.iter().all(room) { GUARD } else { 0 };
        let mut spans = Vec::new();
        for (span, before) in self.dispatch.spans.iter().zip(&self.before) {
            let fresh = Buffer::persistent(span.buffer.label(), span.kind(), span.len + guard).span();
            fill(device, &fresh, before.as_ref())?;
            spans.push(fresh);
        }
        let groups = if !device.runs_twins() && dispatch.kernel.is_foldable() {
            folded(dispatch.groups)
        } else {
            dispatch.groups
        };
        device.run(&Recording::of(Dispatch { spans: spans.clone(), groups, ..dispatch.clone() }))?;
        self.judge(device, &spans, guard)
    }

    /// Runs the trial where it was recorded and again, guarded; everything that is wrong with either, and whether the two gave
    /// the same bits.
    pub fn examine(&self, device: &mut dyn Executor) -> Result<Vec<Difference>> {
        let (mut found, first) = self.run_in_place(device)?;
        let (again, second) = self.run_guarded(device, &self.dispatch)?;
        for (difference, other) in found.iter_mut().zip(again) {
            if difference.fault.is_none() && (other.fault.is_some() || other.max_abs > difference.max_abs) {
                *difference = other;
            }
        }
        for (difference, (a, b)) in found.iter_mut().zip(first.iter().zip(&second)) {
            let differs = a.iter().zip(b).position(|(a, b)| a != b && ![*a, *b].contains(&POISON));
            if let (None, Some(i)) = (difference.fault, differs) {
                difference.fault = Some(Fault::NotRepeatable);
                difference.worst = (i, f64::from(f32::from_bits(a[i])), f64::from(f32::from_bits(b[i])));
            }
        }
        Ok(found)
    }

    fn judge(&self, device: &mut dyn Executor, spans: &[Span], guard: usize) -> Result<(Vec<Difference>, Written)> {
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
                    judge.guard(&bits[len..], POISON, len);
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

    /// The bits that a guarded run puts into binding `i` before the dispatch.
    fn untouched(&self, i: usize, len: usize) -> Option<Vec<u32>> {
        match &self.before[i] {
            Some(Content::Real(x)) => Some(x.iter().map(|&x| poisoned(x).to_bits()).collect()),
            Some(Content::Words(_)) => None,
            None => Some(vec![POISON; len]),
        }
    }
}

/// The value as f32; what nobody wrote becomes poison.
fn poisoned(x: f64) -> f32 {
    if x.is_nan() { f32::from_bits(POISON) } else { x as f32 }
}

/// Writes the content to the start of a span and poison behind it, or poison everywhere.
fn fill(device: &mut dyn Executor, span: &Span, content: Option<&Content>) -> Result<()> {
    match content {
        Some(Content::Words(words)) => {
            let mut words = words.clone();
            words.resize(span.len, POISON_WORD);
            device.write_words(span, &words)
        }
        Some(Content::Real(x)) => {
            let mut x: Vec<f32> = x.iter().map(|&x| poisoned(x)).collect();
            x.resize(span.len, f32::from_bits(POISON));
            device.write_real(span, &x)
        }
        None if span.kind() == Kind::Real => device.write_real(span, &vec![f32::from_bits(POISON); span.len]),
        None => device.write_words(span, &vec![POISON_WORD; span.len]),
    }
}

/// A grid of one axis, folded over two; it overshoots, as folded grids do.
fn folded(groups: [u32; 3]) -> [u32; 3] {
    match groups {
        [x, 1, 1] => [x.div_ceil(2), 2, 1],
        other => other,
    }
}
