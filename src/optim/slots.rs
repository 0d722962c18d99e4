//! The state of an update rule on the device, and the state of a run as named tensors.
//!
//! A rule keeps its slots beside the slices of the arena, or in buffers of each parameter.

use std::collections::HashMap;

use crate::error::{Context, Result};
use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Buffer, Executor, Kind, Span};
use crate::tensor::{Parameters, Piece, TENSOR_ALIGNMENT, Tensor, Trainable};

/// A tensor of a run's state on the device: a trained value, or a slot of one. Reals are f32 in
/// files, words i32.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name in files.
    pub name: String,
    shape: [usize; 2],
    /// The elements in order. Only the host reads and writes them, so they need no alignment.
    spans: Vec<Span>,
}

impl Stored {
    /// An f32 tensor.
    pub fn of(name: String, tensor: &Tensor) -> Self {
        let span = |p: &Piece| p.span.prefix(p.rows * tensor.cols);
        Self { name, shape: [tensor.rows, tensor.cols], spans: tensor.pieces().iter().map(span).collect() }
    }

    fn dtype(&self) -> DType {
        match self.spans[0].kind() {
            Kind::Real => DType::F32,
            _ => DType::I32,
        }
    }

    /// Reads its values.
    pub fn read(&self, device: &mut dyn Executor) -> Result<HostTensor> {
        let mut bytes = Vec::new();
        for span in &self.spans {
            match self.dtype() {
                DType::F32 => bytes.extend_from_slice(bytemuck::cast_slice(&device.read_real(span)?)),
                _ => bytes.extend_from_slice(bytemuck::cast_slice(&device.read_words(span)?)),
            }
        }
        HostTensor::new(self.dtype(), self.shape.to_vec(), bytes)
    }

    /// Writes values of the same type and shape.
    fn write(&self, device: &mut dyn Executor, host: &HostTensor) -> Result<()> {
        let mut at = 0;
        for span in &self.spans {
            let bytes = &host.bytes[at..at + 4 * span.len];
            match self.dtype() {
                DType::F32 => device.write_real(span, &bytemuck::pod_collect_to_vec::<u8, f32>(bytes))?,
                _ => device.write_words(span, &bytemuck::pod_collect_to_vec::<u8, u32>(bytes))?,
            }
            at += bytes.len();
        }
        Ok(())
    }
}

/// Reads tensors with their names.
pub fn read_stored(device: &mut dyn Executor, tensors: &[Stored]) -> Result<Vec<(String, HostTensor)>> {
    let read = |t: &Stored| Ok((t.name.clone(), t.read(device).with_context(|| format!("reading {}", t.name))?));
    tensors.iter().map(read).collect()
}

/// Writes values to tensors, in the same order.
pub fn write_stored(device: &mut dyn Executor, tensors: &[Stored], values: &[&HostTensor]) -> Result<()> {
    tensors.iter().zip(values).try_for_each(|(tensor, host)| tensor.write(device, host))
}

/// The values of `given` in the order of the device's tensors. Fails unless all names, shapes and
/// types match.
pub fn matching<'a>(tensors: &[Stored], given: &'a [(String, HostTensor)]) -> Result<Vec<&'a HostTensor>> {
    let by_name: HashMap<&str, &HostTensor> = given.iter().map(|(name, t)| (name.as_str(), t)).collect();
    if let Some((name, _)) = given.iter().find(|(name, _)| !tensors.iter().any(|own| own.name == *name)) {
        crate::bail!("the state contains {name}, which is not trained here");
    }
    let value = |tensor: &Stored| {
        let name = &tensor.name;
        let Some(host) = by_name.get(name.as_str()).copied() else { crate::bail!("the state lacks {name}") };
        let (shape, dtype) = (tensor.shape, tensor.dtype());
        crate::ensure!(host.shape == shape, "{name} has the shape {shape:?}, but {:?} in the state", host.shape);
        crate::ensure!(host.dtype == dtype, "{name} has the type {dtype}, but {} in the state", host.dtype);
        Ok(host)
    };
    tensors.iter().map(value).collect()
}

/// The layout of a slot that lies beside the slices of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// f32 for each element.
    Elements,
    /// 8 bits for each element of a block of [`TENSOR_ALIGNMENT`], four in a word.
    Codes,
    /// f32 for each block of [`TENSOR_ALIGNMENT`] elements.
    Blocks,
}

impl Layout {
    fn kind(self) -> Kind {
        if self == Layout::Codes { Kind::U32 } else { Kind::Real }
    }

    /// Elements of the slot for `n` elements of a slice, from the start of a tensor.
    fn len(self, n: usize) -> usize {
        let blocks = n.div_ceil(TENSOR_ALIGNMENT);
        match self {
            Layout::Elements => n,
            Layout::Codes => blocks * (TENSOR_ALIGNMENT / 4),
            Layout::Blocks => blocks,
        }
    }

    /// What belongs to a parameter's piece in the buffer of its slice.
    fn part(self, piece: &Piece, buffer: &Buffer) -> Span {
        Span { buffer: buffer.clone(), offset: self.len(piece.span.offset), len: self.len(piece.span.len) }
    }
}

/// The slots of all parameters.
#[derive(Clone, Debug)]
pub struct Slots {
    buffers: Vec<Vec<Buffer>>,
    stored: Vec<Stored>,
}

impl Slots {
    /// Slots beside the slices of the arena: for each slice, a buffer of each of these.
    pub fn per_slice(parameters: Parameters<'_>, layouts: &[(&'static str, Layout)]) -> Self {
        let Parameters { arena, trainables } = parameters;
        let of_slice = |n: usize| {
            let buffer =
                |&(name, layout): &(&'static str, Layout)| Buffer::persistent(name, layout.kind(), layout.len(n));
            layouts.iter().map(buffer).collect()
        };
        let buffers: Vec<Vec<Buffer>> = arena.slices.iter().map(|slice| of_slice(slice.values.len())).collect();
        let mut stored = Vec::new();
        for (i, (name, layout)) in layouts.iter().enumerate() {
            for t in trainables {
                let part = |p: &Piece| layout.part(p, &buffers[arena.slice_of(p)][i]);
                let spans: Vec<Span> = t.value.pieces().iter().map(part).collect();
                let shape = match layout {
                    Layout::Elements => [t.value.rows, t.value.cols],
                    _ => [spans.iter().map(|s| s.len).sum(), 1],
                };
                stored.push(Stored { name: format!("{}.{name}", t.name), shape, spans });
            }
        }
        Self { buffers, stored }
    }

    /// f32 slots in buffers of each parameter: `of` gives their names and shapes in order.
    pub fn per_tensor(parameters: Parameters<'_>, of: impl Fn(&Trainable) -> Vec<(&'static str, [usize; 2])>) -> Self {
        let (mut buffers, mut stored) = (Vec::new(), Vec::new());
        for t in parameters.trainables {
            let slots = of(t);
            let buffer =
                |(name, [rows, cols]): &(&'static str, [usize; 2])| Buffer::persistent(*name, Kind::Real, rows * cols);
            let own: Vec<Buffer> = slots.iter().map(buffer).collect();
            let named = slots.iter().zip(&own).map(|((name, shape), buffer)| Stored {
                name: format!("{}.{name}", t.name),
                shape: *shape,
                spans: vec![buffer.span()],
            });
            stored.extend(named);
            buffers.push(own);
        }
        Self { buffers, stored }
    }

    /// For each slice or parameter, the rule's buffers in order.
    pub fn buffers(&self) -> &[Vec<Buffer>] {
        &self.buffers
    }

    /// The slots of each parameter, named `PARAMETER.SLOT`.
    pub fn stored(&self) -> &[Stored] {
        &self.stored
    }

    /// Device memory of all slots in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.buffers.iter().flatten().map(Buffer::n_bytes).sum()
    }
}
