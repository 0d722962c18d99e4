//! Arenas: large buffers for trainable tensors, with gradients at equal offsets.
//!
//! Gradient norm, clipping and the optimiser then need one dispatch per slice instead of one per
//! tensor. Optimiser state lies in separate buffers of the same lengths (see `optim`).

use super::{Format, Piece, Tensor, cut_rows};
use crate::error::Result;
use crate::gpu::{Buffer, DeviceLimits, Executor, Kind, Recording};

/// Tensors of an arena begin at multiples of this many elements, so that a block of 8-bit optimiser
/// state never holds elements of two tensors.
pub const TENSOR_ALIGNMENT: usize = 256;

/// Maximum elements per slice (1 GiB), even if the device can bind more, to keep single allocations
/// moderate.
const MAX_SLICE_ELEMENTS: usize = 1 << 28;

/// Two buffers of equal length. Elements outside tensors are padding, whose gradients stay zero.
#[derive(Clone, Debug)]
pub struct ArenaSlice {
    /// Parameters.
    pub values: Buffer,
    /// Their gradients.
    pub grads: Buffer,
    /// The value to which weight decay pulls all of this slice, if it applies.
    pub decay: Option<f32>,
    /// Whose learning rate applies to all of this slice.
    pub group: Group,
}

/// Parameters with the same learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Parameters that learn at the run's rate.
    Main,
    /// What LoRA+ gives a rate of its own: B matrices of an adapter, and its vectors.
    LoraB,
}

/// All slices of the trainable tensors.
#[derive(Clone, Debug)]
pub struct Arena {
    /// The slices.
    pub slices: Vec<ArenaSlice>,
}

/// A trainable tensor to place in an arena.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name in files and messages.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The value to which weight decay pulls, if it applies: 0 but for norms whose files hold w of
    /// 1 + w.
    pub decay: Option<f32>,
    /// Whose learning rate applies.
    pub group: Group,
}

/// A trainable tensor in an arena.
#[derive(Clone, Debug)]
pub struct Trainable {
    /// Name in files and messages.
    pub name: String,
    /// The parameter, f32, cut into pieces by rows.
    pub value: Tensor,
    /// Its gradient, in the same pieces.
    pub grad: Tensor,
}

/// The parameters of an optimiser.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// Their memory.
    pub arena: &'a Arena,
    /// The tensors in it.
    pub trainables: &'a [Trainable],
}

/// Location of one piece of a tensor.
struct Place {
    slice: usize,
    offset: usize,
    row: usize,
    rows: usize,
}

/// Slice sizes while packing.
#[derive(Default)]
struct Packer {
    /// Elements used, and what all tensors of the slice have in common.
    slices: Vec<(usize, Shared)>,
}

/// What all tensors of a slice have in common: weight decay and group.
type Shared = (Option<f32>, Group);

impl Packer {
    /// Allocates `n` elements; returns slice and offset.
    fn place(&mut self, n: usize, shared: Shared, max: usize) -> (usize, usize) {
        // The last slice of each kind is being filled.
        if let Some(slice) = self.slices.iter().rposition(|(_, of)| *of == shared) {
            let offset = self.slices[slice].0.next_multiple_of(TENSOR_ALIGNMENT);
            if offset + n <= max {
                self.slices[slice].0 = offset + n;
                return (slice, offset);
            }
        }
        self.slices.push((n, shared));
        (self.slices.len() - 1, 0)
    }
}

impl Arena {
    /// Packs tensors in the given order, aligned to [`TENSOR_ALIGNMENT`] elements. Slices are as
    /// large as needed and no larger than a device binding. A tensor too large for one slice is cut
    /// by rows. Allocates no memory; see [`Arena::zero`]. Fails if one row of a tensor does not fit
    /// a binding.
    pub fn new(specs: &[Spec], limits: &DeviceLimits) -> Result<(Arena, Vec<Trainable>)> {
        let max = limits.max_elements().min(MAX_SLICE_ELEMENTS);
        let slice_limits = DeviceLimits { max_binding_bytes: max as u64 * 4, ..*limits };
        let mut packer = Packer::default();
        let mut places = Vec::new();
        for spec in specs {
            let cuts = cut_rows(&spec.name, Format::F32, spec.rows, spec.cols, &slice_limits)?;
            let place = |(row, rows)| {
                let (slice, offset) = packer.place(rows * spec.cols, (spec.decay, spec.group), max);
                Place { slice, offset, row, rows }
            };
            places.push(cuts.into_iter().map(place).collect::<Vec<_>>());
        }
        let slices = packer.slices.into_iter().map(|(n, (decay, group))| {
            let buffer = |label| Buffer::persistent(label, Kind::Real, n);
            ArenaSlice { values: buffer("parameters"), grads: buffer("gradients"), decay, group }
        });
        let arena = Arena { slices: slices.collect() };
        let trainables = specs.iter().zip(&places).map(|(spec, places)| arena.trainable(spec, places)).collect();
        Ok((arena, trainables))
    }

    fn trainable(&self, spec: &Spec, places: &[Place]) -> Trainable {
        let tensor = |buffer_of: fn(&ArenaSlice) -> &Buffer| {
            let piece = |p: &Place| {
                let span = buffer_of(&self.slices[p.slice]).slice(p.offset, p.rows * spec.cols);
                Piece { row: p.row, rows: p.rows, span }
            };
            Tensor::from_pieces(spec.rows, spec.cols, Format::F32, places.iter().map(piece).collect())
        };
        Trainable { name: spec.name.clone(), value: tensor(|s| &s.values), grad: tensor(|s| &s.grads) }
    }

    /// Fills values, gradients and padding with zeros. Call it once, before writing parameters:
    /// norm and update run over whole slices, padding included.
    pub fn zero(&self, device: &mut dyn Executor) -> Result<()> {
        let mut rec = Recording::new();
        for slice in &self.slices {
            for buffer in [&slice.values, &slice.grads] {
                rec.clear(&buffer.span());
            }
        }
        device.run(&rec)
    }

    /// Appends commands that clear all gradients.
    pub fn clear_grads(&self, rec: &mut Recording) {
        for slice in &self.slices {
            rec.clear(&slice.grads.span());
        }
    }

    /// The index of the slice that holds a piece of a parameter.
    pub fn slice_of(&self, piece: &Piece) -> usize {
        let slice = self.slices.iter().position(|s| s.values.id() == piece.span.buffer.id());
        slice.expect("the tensor is a parameter in this arena")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::CpuExecutor;

    fn spec(name: &str, rows: usize, cols: usize, decay: Option<f32>) -> Spec {
        Spec { name: name.into(), rows, cols, decay, group: Group::Main }
    }

    #[test]
    fn small_tensors_share_tight_slices_split_by_decay_and_group() {
        let limits = CpuExecutor::<f32>::new().limits();
        let specs = [
            spec("a", 3, 10, Some(0.0)),
            spec("norm", 1, 10, None),
            spec("b", 7, 10, Some(0.0)),
            spec("offset norm", 1, 10, Some(1.0)),
            Spec { group: Group::LoraB, ..spec("lora_B", 2, 10, Some(0.0)) },
        ];
        let (arena, trainables) = Arena::new(&specs, &limits).unwrap();
        let sizes: Vec<_> = arena.slices.iter().map(|s| (s.values.len(), s.grads.len(), s.decay)).collect();
        let expected = [(256 + 70, Some(0.0)), (10, None), (10, Some(1.0)), (20, Some(0.0))];
        assert_eq!(sizes, expected.map(|(n, decay)| (n, n, decay)));
        assert_eq!(arena.slices[3].group, Group::LoraB);
        assert_eq!(
            trainables.iter().map(|t| arena.slice_of(&t.value.pieces()[0])).collect::<Vec<_>>(),
            [0, 1, 0, 2, 3]
        );
        let b = &trainables[2];
        assert_eq!((b.value.span().offset, b.grad.span().offset), (256, 256));
        assert_eq!(b.value.span().buffer.id(), arena.slices[0].values.id());
        assert_eq!(b.grad.span().buffer.id(), arena.slices[0].grads.id());
    }

    #[test]
    fn tensors_larger_than_a_binding_are_cut_and_padding_is_zero() {
        let mut device = CpuExecutor::<f32>::with_binding_limit(1024);
        let specs = [spec("small", 1, 10, Some(0.0)), spec("large", 37, 24, Some(0.0)), spec("last", 2, 24, Some(0.0))];
        let (arena, trainables) = Arena::new(&specs, &device.limits()).unwrap();
        assert!(arena.slices.iter().all(|s| s.values.len() <= 256));
        arena.zero(&mut device).unwrap();
        for t in &trainables {
            t.value.write(&mut device, &vec![1.0; t.value.len()]).unwrap();
        }
        let cuts = |t: &Tensor| t.pieces().iter().map(|p| (p.row, p.span.offset)).collect::<Vec<_>>();
        assert!(cuts(&trainables[1].value).len() > 3);
        assert_eq!(cuts(&trainables[1].value), cuts(&trainables[1].grad));
        let sum: f32 = arena.slices.iter().flat_map(|s| device.read_real(&s.values.span()).unwrap()).sum();
        assert_eq!(sum, (10 + 37 * 24 + 48) as f32);
    }

    #[test]
    fn gradients_are_cleared_and_values_kept() {
        let mut device = CpuExecutor::<f32>::new();
        let (arena, trainables) = Arena::new(&[spec("a", 2, 3, Some(0.0))], &device.limits()).unwrap();
        arena.zero(&mut device).unwrap();
        trainables[0].value.write(&mut device, &[2.0; 6]).unwrap();
        trainables[0].grad.write(&mut device, &[3.0; 6]).unwrap();
        let mut rec = Recording::new();
        arena.clear_grads(&mut rec);
        device.run(&rec).unwrap();
        assert_eq!(trainables[0].grad.read(&mut device).unwrap(), [0.0; 6]);
        assert_eq!(trainables[0].value.read(&mut device).unwrap(), [2.0; 6]);
    }
}
