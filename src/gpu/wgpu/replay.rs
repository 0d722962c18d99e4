//! Reuses kernels, plans and bind groups of earlier recordings with the same key.
//!
//! The steps of training and of generation repeat the same recording. wgpu cannot submit a compute
//! command buffer twice, so commands are encoded every time. Choosing kernels, looking up pipelines
//! and creating bind groups take the host far longer and are done once; only changed bind groups
//! are created again.

use std::collections::{HashMap, HashSet, VecDeque};

use super::pace::Pace;
use super::part::Part;
use super::pipelines::{Pipeline, Pipelines};
use super::pool::Pool;
use crate::error::Result;
use crate::gpu::texels::Texture;
use crate::gpu::{Buffer, Command, KernelDef, Kind, Lifetime, Plan, Recording, Span};

/// Maximum prepared recordings. A training step has three, a generated token two.
const MOST: usize = 8;

/// Everything that determines how a recording runs except the buffers themselves; these are
/// numbered in order of first use.
pub(super) struct RecordingKey {
    words: Vec<u64>,
    /// The buffers by number.
    pub(super) buffers: Vec<Buffer>,
}

impl RecordingKey {
    pub(super) fn of(recording: &Recording) -> Self {
        let mut shape = Self { words: Vec::new(), buffers: Vec::new() };
        let mut numbers = HashMap::new();
        for command in recording.commands() {
            match command {
                Command::Dispatch(d) => {
                    shape.words.extend([0, std::ptr::from_ref(d.kernel) as u64]);
                    shape.words.extend(d.constants.iter().chain(&d.groups).map(|&n| u64::from(n)));
                    if !d.kernel.alternatives.is_empty() {
                        shape.words.extend(d.params.iter().map(|&byte| u64::from(byte))); // parameters influence the choice of kernel
                    }
                    d.spans.iter().for_each(|s| shape.add(s, &mut numbers));
                }
                Command::Copy { from, to } => {
                    shape.words.push(1);
                    [from, to].into_iter().for_each(|s| shape.add(s, &mut numbers));
                }
                Command::Clear(s) => {
                    shape.words.push(2);
                    shape.add(s, &mut numbers);
                }
            }
        }
        shape
    }

    fn add(&mut self, span: &Span, numbers: &mut HashMap<u64, usize>) {
        let b = &span.buffer;
        let number = *numbers.entry(b.id()).or_insert_with(|| {
            self.buffers.push(b.clone());
            self.words.extend([u64::from(b.lifetime() == Lifetime::Persistent), b.len() as u64]);
            self.buffers.len() - 1
        });
        self.words.extend([number, span.offset, span.len].map(|n| n as u64));
    }
}

/// A command that only needs storage to be encoded.
pub(super) enum Ready {
    /// `number` counts dispatches only: it locates the parameters.
    Dispatch {
        number: usize,
        pipeline: Pipeline,
        kernel: &'static KernelDef,
        groups: [u32; 3],
        params_len: usize,
        parts: Vec<Part>,
    },
    Copy {
        from: Part,
        to: Part,
    },
    Clear(Part),
}

/// A recording with kernels chosen and compiled, memory planned, its pace, and the bind groups of its
/// last run.
pub(super) struct Prepared {
    words: Vec<u64>,
    /// Ids of persistent buffers, and slots of transients, by number.
    places: Vec<Place>,
    pub(super) plan: Plan,
    pub(super) commands: Vec<Ready>,
    pub(super) pace: Pace,
    storage: Vec<Option<wgpu::Buffer>>,
    params: Option<wgpu::Buffer>,
    /// Per command, the bind group of a dispatch; `None` if what it binds has changed.
    bound: Vec<Option<Bound>>,
}

/// Bindings of a dispatch, and the parts that are copied into textures before it.
#[derive(Clone)]
pub(super) struct Bound {
    pub(super) group: wgpu::BindGroup,
    pub(super) texels: Vec<(Part, Texture)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Persistent(u64),
    Slot(usize),
}

impl Prepared {
    /// Prepares a compiled recording with the given key. `chosen` may differ from the keyed
    /// recording only in kernels, constants and grids. Nothing is known of its `pace` yet.
    pub(super) fn new(shape: &RecordingKey, chosen: &Recording, pipelines: &Pipelines, pace: Pace) -> Self {
        let plan = Plan::new(chosen);
        let number: HashMap<u64, usize> = shape.buffers.iter().map(Buffer::id).zip(0..).collect();
        let place = |b: &Buffer| match b.lifetime() {
            Lifetime::Persistent => Place::Persistent(b.id()),
            Lifetime::Transient => Place::Slot(plan.slot(b.id())),
        };
        let part =
            |s: &Span| Part { buffer: number[&s.buffer.id()], offset: s.offset as u64 * 4, len: s.len as u64 * 4 };
        let mut numbers = 0..;
        let mut ready = |command: &Command| match command {
            Command::Dispatch(d) => Ready::Dispatch {
                number: numbers.next().expect("it has no end"),
                pipeline: pipelines.get(d).clone(),
                kernel: d.kernel,
                groups: d.groups,
                params_len: d.params.len(),
                parts: d.spans.iter().map(part).collect(),
            },
            Command::Copy { from, to } => Ready::Copy { from: part(from), to: part(to) },
            Command::Clear(s) => Ready::Clear(part(s)),
        };
        let commands: Vec<Ready> = chosen.commands().iter().map(&mut ready).collect();
        Self {
            words: shape.words.clone(),
            places: shape.buffers.iter().map(place).collect(),
            storage: vec![None; shape.buffers.len()],
            params: None,
            bound: vec![None; commands.len()],
            commands,
            pace,
            plan,
        }
    }

    /// Assigns storage to every buffer, `persistent` by number and `slots` by the plan. Creates
    /// bind groups where the storage changed, with a `texture` for each part that a dispatch reads
    /// as one.
    pub(super) fn bind(
        &mut self,
        device: &wgpu::Device,
        buffers: &[Buffer],
        mut persistent: impl FnMut(&Buffer) -> Result<wgpu::Buffer>,
        slots: &[wgpu::Buffer],
        params: &wgpu::Buffer,
        mut texture: impl FnMut((usize, Kind), Part) -> Result<Texture>,
    ) -> Result<()> {
        let mut changed = vec![false; buffers.len()];
        for (i, buffer) in buffers.iter().enumerate() {
            let (place, now) = match self.places[i] {
                Place::Persistent(_) => (Place::Persistent(buffer.id()), persistent(buffer)?),
                Place::Slot(slot) => (Place::Slot(slot), slots[slot].clone()),
            };
            self.places[i] = place;
            changed[i] = self.storage[i].as_ref() != Some(&now);
            self.storage[i] = Some(now);
        }
        self.unbind(&changed);
        if self.params.as_ref() != Some(params) {
            self.params = Some(params.clone());
            self.bound.fill(None);
        }
        for i in 0..self.commands.len() {
            if self.bound[i].is_none()
                && let Ready::Dispatch { .. } = self.commands[i]
            {
                self.bound[i] = Some(self.bound_to(device, &self.commands[i], &mut texture)?);
            }
        }
        Ok(())
    }

    /// Drops the bind groups that hold a marked buffer, by number.
    fn unbind(&mut self, marked: &[bool]) {
        if !marked.contains(&true) {
            return;
        }
        for (command, bound) in self.commands.iter().zip(&mut self.bound) {
            if let Ready::Dispatch { parts, .. } = command
                && parts.iter().any(|p| marked[p.buffer])
            {
                *bound = None;
            }
        }
    }

    /// Drops the buffers for which `is_gone` holds, so that their memory is freed.
    fn forget(&mut self, is_gone: impl Fn(Place, &wgpu::Buffer) -> bool) {
        let mut gone = vec![false; self.storage.len()];
        for ((storage, &place), gone) in self.storage.iter_mut().zip(&self.places).zip(&mut gone) {
            *gone = storage.as_ref().is_some_and(|s| is_gone(place, s));
            if *gone {
                *storage = None;
            }
        }
        self.unbind(&gone);
    }

    /// Drops persistent buffers whose handles are gone.
    pub(super) fn forget_dead(&mut self, dead: &HashSet<u64>) {
        if !dead.is_empty() {
            self.forget(|place, _| matches!(place, Place::Persistent(id) if dead.contains(&id)));
        }
    }

    /// Drops textures.
    pub(super) fn forget_texels(&mut self) {
        for bound in &mut self.bound {
            bound.take_if(|bound| !bound.texels.is_empty());
        }
    }

    /// Drops slots that the pool no longer holds.
    pub(super) fn forget_slots(&mut self, pool: &Pool) {
        self.forget(|place, storage| matches!(place, Place::Slot(_)) && !pool.holds(storage));
    }

    fn bound_to(
        &self,
        device: &wgpu::Device,
        command: &Ready,
        texture: &mut impl FnMut((usize, Kind), Part) -> Result<Texture>,
    ) -> Result<Bound> {
        let Ready::Dispatch { pipeline, kernel, params_len, parts, .. } = command else {
            unreachable!("only dispatches bind anything")
        };
        let read_as_texels = |i: &usize| kernel.bindings[*i].texels;
        let texels = (0..parts.len())
            .filter(read_as_texels)
            .map(|i| Ok((parts[i], texture((i, kernel.bindings[i].kind), parts[i])?)));
        let texels: Vec<(Part, Texture)> = texels.collect::<Result<_>>()?;
        let whole = |buffer, offset, len| {
            let size = std::num::NonZeroU64::new(len);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
        };
        let params = self.params.as_ref().expect("set before anything is bound");
        let params = std::iter::once(whole(params, 0, *params_len as u64));
        let mut views = texels.iter().map(|(_, texture)| &texture.view);
        let spans = parts.iter().zip(kernel.bindings).map(|(p, binding)| match binding.texels {
            true => wgpu::BindingResource::TextureView(views.next().expect("one for each such binding")),
            false => whole(self.storage(*p), p.offset, p.len),
        });
        let resources = params.chain(spans).zip(0..);
        let entries: Vec<_> = resources.map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource }).collect();
        let (label, layout) = (Some(kernel.label), &pipeline.layout);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries });
        Ok(Bound { group, texels })
    }

    /// The storage of a part's buffer.
    pub(super) fn storage(&self, part: Part) -> &wgpu::Buffer {
        self.storage[part.buffer].as_ref().expect("bound before it is encoded")
    }

    /// Bindings of command `i`, which is a dispatch.
    pub(super) fn bound(&self, i: usize) -> &Bound {
        self.bound[i].as_ref().expect("bound before it is encoded")
    }
}

/// The most recently run recordings.
#[derive(Default)]
pub(super) struct Replays {
    kept: VecDeque<Prepared>,
    /// Number of times a prepared recording was reused.
    pub(super) hits: u64,
}

impl Replays {
    /// Takes out the prepared recording with this key.
    pub(super) fn take(&mut self, shape: &RecordingKey) -> Option<Prepared> {
        let at = self.kept.iter().position(|p| p.words == shape.words)?;
        self.hits += 1;
        self.kept.remove(at)
    }

    /// Keeps a prepared recording for the next one with its key.
    pub(super) fn keep(&mut self, prepared: Prepared) {
        self.kept.push_front(prepared);
        self.kept.truncate(MOST);
    }

    /// [`Prepared::forget_dead`] for all.
    pub(super) fn forget_dead(&mut self, dead: &HashSet<u64>) {
        self.kept.iter_mut().for_each(|prepared| prepared.forget_dead(dead));
    }

    /// [`Prepared::forget_texels`] for all.
    pub(super) fn forget_texels(&mut self) {
        self.kept.iter_mut().for_each(Prepared::forget_texels);
    }

    /// [`Prepared::forget_slots`] for all.
    pub(super) fn forget_slots(&mut self, pool: &Pool) {
        self.kept.iter_mut().for_each(|prepared| prepared.forget_slots(pool));
    }
}
