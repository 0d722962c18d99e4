//! A recording: the list of commands that ops append and executors run, independent of any device.
//!
//! WebGPU's rules are asserted when a command is appended, so that the CPU executor rejects what a
//! GPU would: no buffer is both read and written in one dispatch or copied onto itself, offsets are
//! aligned, grids are within the limits.

use std::collections::HashSet;
use std::ops::Range;

use super::kernel::{Dispatch, MAX_GROUPS};
use super::{Access, Buffer, KernelDef, Kind, Lifetime, Params, Span};

/// One command of a recording.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run a kernel.
    Dispatch(Dispatch),
    /// Copy `from` to `to`: equal kinds and lengths, different buffers.
    Copy {
        /// Source.
        from: Span,
        /// Destination.
        to: Span,
    },
    /// Fill with zeros.
    Clear(Span),
}

/// Workgroups for `n` invocations in groups of `size`: one axis if it fits, else folded over two
/// (the shader's `linear_index` unfolds it). The grid may exceed `n`, so kernels check their index.
pub fn groups_for(n: usize, size: usize) -> [u32; 3] {
    let groups = u32::try_from(n.div_ceil(size).max(1)).expect("a grid has fewer than 2^32 workgroups");
    if groups <= MAX_GROUPS {
        return [groups, 1, 1];
    }
    let y = groups.div_ceil(MAX_GROUPS);
    [groups.div_ceil(y), y, 1]
}

/// An ordered list of commands.
///
/// An op appends commands and computes nothing; any executor can run the list.
///
/// ```
/// use longreach::gpu::{CpuExecutor, Executor, Recording};
/// use longreach::kernels::elementwise::add_into;
/// use longreach::tensor::{Format, Tensor};
///
/// let mut device = CpuExecutor::<f32>::new();
/// let limits = device.limits();
/// let x = Tensor::persistent("x", Format::F32, 1, 4, &limits)?;
/// let sum = Tensor::persistent("sum", Format::F32, 1, 4, &limits)?;
/// x.write(&mut device, &[1.0, 2.0, 3.0, 4.0])?;
///
/// let mut rec = Recording::new();
/// rec.clear(sum.span());
/// add_into(&mut rec, &x, &sum);
/// add_into(&mut rec, &x, &sum);
/// assert_eq!(rec.commands().len(), 3);
///
/// device.run(&rec)?;
/// assert_eq!(sum.read(&mut device)?, [2.0, 4.0, 6.0, 8.0]);
/// # Ok::<(), longreach::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recording {
    commands: Vec<Command>,
    /// Ranges of commands that may run side by side, in order.
    side_by_side: Vec<Range<usize>>,
}

impl Recording {
    /// An empty recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// One dispatch alone.
    pub(crate) fn of(dispatch: Dispatch) -> Self {
        Self { commands: vec![Command::Dispatch(dispatch)], ..Self::default() }
    }

    /// The commands in order.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The dispatches in order.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.commands.iter().filter_map(|c| match c {
            Command::Dispatch(d) => Some(d),
            _ => None,
        })
    }

    /// Bytes of the persistent buffers that it uses and that have no memory yet.
    pub(super) fn new_bytes(&self, has_memory: impl Fn(&Buffer) -> bool) -> u64 {
        let (mut bytes, mut met) = (0, HashSet::new());
        for (span, _) in self.commands.iter().flat_map(Command::uses) {
            let b = &span.buffer;
            if b.lifetime() == Lifetime::Persistent && !has_memory(b) && met.insert(b.id()) {
                bytes += b.n_bytes();
            }
        }
        bytes
    }

    /// A new transient of `len` elements. It lives from its first to its last command in this
    /// recording.
    pub fn transient(&self, label: &str, kind: Kind, len: usize) -> Span {
        Buffer::new(label, kind, len, Lifetime::Transient).span()
    }

    /// Appends a dispatch.
    ///
    /// `groups` are workgroups per axis; `constants` are the values of `kernel.constants` in order.
    pub fn dispatch<P: Params>(
        &mut self,
        kernel: &'static KernelDef,
        constants: &[u32],
        params: P,
        spans: &[&Span],
        groups: [u32; 3],
    ) {
        assert_eq!(spans.len(), kernel.bindings.len(), "{kernel:?}: number of buffers");
        assert_eq!(constants.len(), kernel.constants.len(), "{kernel:?}: number of constants");
        assert!(groups.iter().all(|&g| (1..=MAX_GROUPS).contains(&g)), "{kernel:?}: grid {groups:?}");
        for (span, binding) in spans.iter().zip(kernel.bindings) {
            assert_eq!(span.kind(), binding.kind, "{kernel:?}: kind of {} ({})", binding.name, span.buffer.label());
        }
        for (i, a) in kernel.bindings.iter().enumerate() {
            for (j, b) in kernel.bindings.iter().enumerate().skip(i + 1) {
                let shared = spans[i].buffer.id() == spans[j].buffer.id();
                let written = a.access != Access::Read || b.access != Access::Read;
                assert!(!(shared && written), "{kernel:?}: {} and {} share a buffer that is written", a.name, b.name);
            }
        }
        self.commands.push(Command::Dispatch(Dispatch {
            kernel,
            constants: constants.to_vec(),
            params: bytemuck::bytes_of(&params).to_vec(),
            spans: spans.iter().map(|&s| s.clone()).collect(),
            groups,
        }));
    }

    /// Appends a copy between two different buffers.
    pub fn copy(&mut self, from: &Span, to: &Span) {
        assert_ne!(from.buffer.id(), to.buffer.id(), "a buffer is not copied onto itself");
        assert_eq!((from.kind(), from.len), (to.kind(), to.len), "a copy keeps kind and length");
        self.commands.push(Command::Copy { from: from.clone(), to: to.clone() });
    }

    /// Appends a fill with zeros.
    pub fn clear(&mut self, span: &Span) {
        self.commands.push(Command::Clear(span.clone()));
    }

    /// Says that the commands from number `first` on are small, and that those of one kernel that
    /// follow each other mostly touch different memory. An executor may run these side by side.
    pub fn mark_side_by_side(&mut self, first: usize) {
        self.side_by_side.push(first..self.commands.len());
    }

    /// How many dispatches of one kernel, from command `i` on, may run side by side if they touch
    /// different memory: at least 1.
    pub(crate) fn n_side_by_side(&self, i: usize) -> usize {
        let next = self.side_by_side.partition_point(|range| range.end <= i);
        let end = self.side_by_side.get(next).filter(|range| range.contains(&i)).map_or(i + 1, |range| range.end);
        let kernel = |command: &Command| match command {
            Command::Dispatch(d) => Some(std::ptr::from_ref(d.kernel)),
            _ => None,
        };
        let Some(first) = kernel(&self.commands[i]) else { return 1 };
        self.commands[i..end].iter().take_while(|command| kernel(command) == Some(first)).count()
    }

    /// Appends a command of another recording, for running a recording command by command.
    pub fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// This recording with each dispatch replaced by the result of `choose`.
    pub fn with_dispatches(&self, mut choose: impl FnMut(&Dispatch) -> Dispatch) -> Recording {
        let commands = self.commands.iter().map(|c| match c {
            Command::Dispatch(d) => Command::Dispatch(choose(d)),
            other => other.clone(),
        });
        Recording { commands: commands.collect(), ..Self::default() }
    }

    /// This recording with every transient turned into a persistent buffer, so that each command
    /// can be run and inspected alone.
    pub fn promoted(&self) -> Recording {
        let mut map = std::collections::HashMap::new();
        let mut promote = |s: &Span| {
            if s.buffer.lifetime() == Lifetime::Persistent {
                return s.clone();
            }
            let fresh = || Buffer::persistent(s.buffer.label(), s.buffer.kind(), s.buffer.len());
            let buffer = map.entry(s.buffer.id()).or_insert_with(fresh).clone();
            Span { buffer, offset: s.offset, len: s.len }
        };
        let commands = self.commands.iter().map(|c| match c {
            Command::Dispatch(d) => {
                let spans = d.spans.iter().map(&mut promote).collect();
                Command::Dispatch(Dispatch { spans, ..d.clone() })
            }
            Command::Copy { from, to } => Command::Copy { from: promote(from), to: promote(to) },
            Command::Clear(s) => Command::Clear(promote(s)),
        });
        Recording { commands: commands.collect(), ..Self::default() }
    }
}

impl Command {
    /// The spans that the command touches, and how it accesses each.
    pub fn uses(&self) -> impl Iterator<Item = (&Span, Access)> {
        let (dispatch, others) = match self {
            Command::Dispatch(d) => (Some(d), [None, None]),
            Command::Copy { from, to } => (None, [Some((from, Access::Read)), Some((to, Access::Write))]),
            Command::Clear(s) => (None, [Some((s, Access::Write)), None]),
        };
        let bound = dispatch.into_iter().flat_map(|d| d.spans.iter().zip(d.kernel.bindings));
        bound.map(|(span, binding)| (span, binding.access)).chain(others.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_fold_and_cover() {
        assert_eq!(groups_for(1, 64), [1, 1, 1]);
        let n = 64 * 200_000 + 1;
        let [x, y, z] = groups_for(n, 64);
        assert!(x <= MAX_GROUPS && z == 1 && x as usize * y as usize * 64 >= n);
    }

    #[test]
    #[should_panic(expected = "not copied onto itself")]
    fn self_copy_is_refused() {
        let b = Buffer::persistent("b", Kind::Real, 256);
        Recording::new().copy(&b.slice(0, 64), &b.slice(64, 64));
    }
}
