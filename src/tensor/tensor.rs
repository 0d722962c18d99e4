//! Device tensors: matrices, cut into row slices if a binding cannot hold them whole.
//!
//! Activations are [tokens, channels] in one piece. Weights are [out, in] in one or more pieces. A
//! vector is a matrix with one row. A tensor owns no memory: it refers to spans that an executor
//! allocates.

use super::Format;
use crate::error::{Error, Result};
use crate::formats::file_bytes::FileBytes;
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Buffer, DeviceLimits, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span};

/// Consecutive rows of a tensor in one span.
#[derive(Clone, Debug)]
pub struct Piece {
    /// First row within the tensor.
    pub row: usize,
    /// Number of rows.
    pub rows: usize,
    /// The elements.
    pub span: Span,
}

/// Buffer kind for a storage format.
pub const fn kind_of(format: Format) -> Kind {
    match format {
        Format::F32 => Kind::Real,
        _ => Kind::Packed,
    }
}

/// A matrix on a device.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Number of rows (tokens, or a weight's outputs).
    pub rows: usize,
    /// Number of columns (channels, or a weight's inputs).
    pub cols: usize,
    /// Storage format.
    pub format: Format,
    pieces: Vec<Piece>,
}

impl Tensor {
    /// A tensor over existing spans. The pieces must cover the rows in order.
    pub fn from_pieces(rows: usize, cols: usize, format: Format, pieces: Vec<Piece>) -> Self {
        let mut next = 0;
        for p in &pieces {
            assert_eq!(p.row, next, "pieces are consecutive");
            assert!(p.span.len >= format.n_words(p.rows * cols), "a piece holds its rows");
            assert_eq!(p.span.kind(), kind_of(format), "a piece has the format's kind");
            next += p.rows;
        }
        assert_eq!(next, rows, "pieces cover all rows");
        Self { rows, cols, format, pieces }
    }

    /// An f32 tensor in one span.
    pub fn from_span(span: Span, rows: usize, cols: usize) -> Self {
        Self::from_pieces(rows, cols, Format::F32, vec![Piece { row: 0, rows, span }])
    }

    /// A transient f32 activation in one piece.
    pub fn transient(rec: &Recording, label: &str, rows: usize, cols: usize) -> Self {
        Self::from_span(rec.transient(label, Kind::Real, rows * cols), rows, cols)
    }

    /// A transient f32 tensor with the shape and pieces of `other`, for its gradient.
    pub fn transient_like(rec: &Recording, label: &str, other: &Tensor) -> Self {
        let piece = |p: &Piece| Piece { span: rec.transient(label, Kind::Real, p.rows * other.cols), ..p.clone() };
        Self::from_pieces(other.rows, other.cols, Format::F32, other.pieces.iter().map(piece).collect())
    }

    /// A persistent tensor, cut into row slices that fit a device binding.
    pub fn persistent(label: &str, format: Format, rows: usize, cols: usize, limits: &DeviceLimits) -> Result<Self> {
        let pieces = cut_rows(label, format, rows, cols, limits)?.into_iter().map(|(row, rows)| {
            let buffer = Buffer::persistent(label, kind_of(format), format.n_words(rows * cols));
            Piece { row, rows, span: buffer.span() }
        });
        Ok(Self::from_pieces(rows, cols, format, pieces.collect()))
    }

    /// The pieces in row order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The span of a tensor with one piece. Panics if there are more.
    pub fn span(&self) -> &Span {
        assert_eq!(self.pieces.len(), 1, "{} is cut into slices", self.pieces[0].span.buffer.label());
        &self.pieces[0].span
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Never true: buffers hold at least one element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Splits the rows into tensors with `rows[i]` rows each; `None` if a part cannot be bound
    /// separately.
    pub fn split_rows(&self, rows: &[usize]) -> Option<Vec<Tensor>> {
        assert_eq!(rows.iter().sum::<usize>(), self.rows, "the parts are the whole");
        let [piece] = self.pieces.as_slice() else { return None };
        let (mut parts, mut first) = (Vec::new(), 0);
        for &n in rows {
            if !can_begin(self.format, first * self.cols) {
                return None;
            }
            let at = self.format.n_words(first * self.cols);
            let span = piece.span.buffer.slice(piece.span.offset + at, self.format.n_words(n * self.cols));
            parts.push(Self::from_pieces(n, self.cols, self.format, vec![Piece { row: 0, rows: n, span }]));
            first += n;
        }
        Some(parts)
    }

    /// The same elements with another shape. Panics if the tensor has more than one piece.
    pub fn reshaped(&self, rows: usize, cols: usize) -> Self {
        assert_eq!(rows * cols, self.len(), "a reshape keeps the number of elements");
        Self::from_pieces(rows, cols, self.format, vec![Piece { row: 0, rows, span: self.span().clone() }])
    }

    /// Uploads f32 values in row order and rounds them to the format of the tensor.
    pub fn write(&self, device: &mut dyn Executor, values: &[f32]) -> Result<()> {
        assert!(!self.format.is_quantised(), "values are not quantised here: blocks come from files");
        assert_eq!(values.len(), self.len(), "one value an element");
        for p in &self.pieces {
            let part = &values[p.row * self.cols..(p.row + p.rows) * self.cols];
            match self.format {
                Format::F32 => device.write_real(&p.span, part)?,
                Format::Bf16 => device.write_words(&p.span, &pack(part, |x| half::bf16::from_f32(x).to_bits()))?,
                _ => device.write_words(&p.span, &pack(part, |x| half::f16::from_f32(x).to_bits()))?,
            }
        }
        Ok(())
    }

    /// Uploads the packed words of a quantised tensor; see [`Format::words_of_blocks`].
    pub fn write_blocks(&self, device: &mut dyn Executor, words: &[u32]) -> Result<()> {
        let words_of = |rows: usize| self.format.n_words(rows * self.cols);
        assert!(self.format.is_quantised() && words.len() == words_of(self.rows), "blocks for a quantised tensor");
        self.pieces.iter().try_for_each(|p| device.write_words(&p.span, &words[words_of(p.row)..][..words_of(p.rows)]))
    }

    /// Uploads tensors whose rows are the rows of this one, in order: unchanged if they are stored in
    /// its format, else as f32 values, which an f32 tensor takes.
    ///
    /// Where the device has the layout of the file, the executor may keep the pages of tensors that
    /// follow each other in a file. The system gets back the pages of all others.
    pub fn write_stored(&self, device: &mut dyn Executor, parts: &[&HostTensor]) -> Result<()> {
        let rows: usize = parts.iter().map(|part| part.len() / self.cols).sum();
        assert_eq!(rows, self.rows, "the rows of the parts are the rows of the tensor");
        let is_stored = parts.iter().all(|part| part.dtype == self.format.dtype());
        if let Some(bytes) =
            joined(parts).filter(|bytes| is_stored && self.format.has_file_layout() && bytes.words().is_some())
        {
            return self.write_mapped(device, &bytes);
        }
        if is_stored && self.format != Format::F32 {
            return self.pack_stored(device, parts);
        }
        assert_eq!(self.format, Format::F32, "only f32 tensors take values of another type");
        let mut values = Vec::with_capacity(self.len());
        for part in parts {
            values.extend(part.to_f32()?);
            part.bytes.release_all();
        }
        self.write(device, &values)
    }

    /// Hands the executor the bytes of a file as they are.
    fn write_mapped(&self, device: &mut dyn Executor, bytes: &FileBytes) -> Result<()> {
        let words_of = |rows: usize| self.format.n_words(rows * self.cols);
        for p in &self.pieces {
            let part = bytes.slice(4 * words_of(p.row)..4 * words_of(p.row + p.rows));
            device.write_mapped(&p.span.prefix(words_of(p.rows)), &part)?;
        }
        Ok(())
    }

    /// Lays out the bytes of tensors in this tensor's format as words.
    fn pack_stored(&self, device: &mut dyn Executor, parts: &[&HostTensor]) -> Result<()> {
        let words_of = |rows: usize| self.format.n_words(rows * self.cols);
        for p in &self.pieces {
            let fill = |first: usize, words: &mut [u32]| pack_words(self.format, parts, words_of(p.row) + first, words);
            device.fill_words(&p.span.prefix(words_of(p.rows)), self.format.block_words(), &fill)?;
        }
        Ok(())
    }

    /// Reads an f32 tensor back in row order.
    pub fn read(&self, device: &mut dyn Executor) -> Result<Vec<f32>> {
        assert_eq!(self.format, Format::F32, "only f32 tensors are read back");
        let mut values = Vec::with_capacity(self.len());
        for p in &self.pieces {
            values.extend(device.read_real(&p.span.prefix(p.rows * self.cols))?);
        }
        Ok(values)
    }
}

/// The bytes of tensors that follow each other in a mapped file.
fn joined(parts: &[&HostTensor]) -> Option<FileBytes> {
    let mut mapped = parts.iter().map(|part| part.bytes.mapped());
    let first = mapped.next()??.clone();
    mapped.try_fold(first, |all, next| all.joined(next?))
}

/// Lays out the blocks of tensors as the words from `first` on, where the words of each tensor follow
/// those of the one before.
fn pack_words(format: Format, parts: &[&HostTensor], mut first: usize, mut words: &mut [u32]) {
    let block_bytes = format.block_len() / format.dtype().block_len() * format.dtype().block_bytes();
    for part in parts {
        let n = format.n_words(part.len());
        if first >= n {
            first -= n;
            continue;
        }
        let (now, rest) = words.split_at_mut(words.len().min(n - first));
        let byte = |word: usize| (word / format.block_words() * block_bytes).min(part.bytes.len());
        let bytes = byte(first)..byte(first + now.len());
        format.pack(&part.bytes[bytes.clone()], now);
        part.bytes.release(bytes);
        (first, words) = (0, rest);
    }
}

fn join(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

fn pack(values: &[f32], bits: impl Fn(f32) -> u16) -> Vec<u32> {
    values.chunks(2).map(|c| join(bits(c[0]), c.get(1).map_or(0, |&x| bits(x)))).collect()
}

/// Elements of a piece, whose indices are u32 in shaders. Packed ones are more than words.
const MOST_ELEMENTS: usize = u32::MAX as usize;

/// Row slices (first row, rows) of a matrix, each small enough for one binding and for indices of 32
/// bits. Every slice except the last has a length that is a multiple of the span alignment.
pub fn cut_rows(
    label: &str,
    format: Format,
    rows: usize,
    cols: usize,
    limits: &DeviceLimits,
) -> Result<Vec<(usize, usize)>> {
    let max = limits.max_elements();
    let mut step = rows;
    if format.n_words(rows * cols) > max || rows * cols > MOST_ELEMENTS {
        let fits = (max / format.block_words()).saturating_mul(format.block_len()).min(MOST_ELEMENTS);
        step = (fits / cols.max(1)).min(rows);
        let aligned =
            (1..=step).rev().take(ELEMENT_ALIGNMENT * format.block_len()).find(|s| can_begin(format, s * cols));
        step = aligned.unwrap_or(step);
    }
    if step == 0 {
        return Err(Error::new(format!(
            "{label}: one row of {cols} does not fit a binding of {max} elements on this device"
        )));
    }
    Ok((0..rows).step_by(step).map(|row| (row, step.min(rows - row))).collect())
}

/// Whether a piece can start after `n` elements: at a block boundary and at an aligned binding
/// offset.
fn can_begin(format: Format, n: usize) -> bool {
    n.is_multiple_of(format.block_len()) && format.n_words(n).is_multiple_of(ELEMENT_ALIGNMENT)
}

/// Copies a tensor. Both tensors must have the same pieces.
pub fn copy_tensor(rec: &mut Recording, from: &Tensor, to: &Tensor) {
    assert_eq!(from.pieces().len(), to.pieces().len(), "a copy keeps the cuts");
    for (a, b) in from.pieces().iter().zip(to.pieces()) {
        let n = a.rows * from.cols;
        rec.copy(&a.span.prefix(n), &b.span.prefix(n));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::formats::mapped_file::MappedFile;
    use crate::gpu::CpuExecutor;

    /// Bytes that differ from their neighbours.
    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 151 % 253) as u8).collect()
    }

    /// The words of blocks of a file, with zeros in the gap of each.
    fn words(format: Format, bytes: &[u8]) -> Vec<u32> {
        let mut out = Vec::new();
        for block in bytes.chunks(format.dtype().block_bytes().max(4)) {
            let gap_at = format.dtype().block_layout().map_or(block.len(), |layout| layout.gap_at);
            let (before, after) = block.split_at(gap_at);
            let gap = block.len().next_multiple_of(4) - block.len();
            out.extend([before, &vec![0; gap], after].concat());
        }
        out.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
    }

    /// Tensors of so many rows, one after the other in a file behind `before` other bytes.
    fn stored(format: Format, rows: &[usize], cols: usize, before: usize) -> Vec<HostTensor> {
        let n_bytes = |rows: usize| format.dtype().bytes_of(&[rows, cols]).unwrap();
        let all = [vec![0xee; before], bytes(n_bytes(rows.iter().sum()))].concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), all).unwrap();
        let file = Arc::new(MappedFile::open(file.path()).unwrap());
        let mut at = before;
        let tensor = |&rows: &usize| {
            let range = at..at + n_bytes(rows);
            at = range.end;
            HostTensor::mapped(format.dtype(), vec![rows, cols], FileBytes::new(&file, range)).unwrap()
        };
        rows.iter().map(tensor).collect()
    }

    /// Uploads parts to one tensor. Returns its words, and how many bytes of it are pages of a file.
    fn uploaded(device: &mut dyn Executor, format: Format, parts: &[&HostTensor]) -> (Vec<u32>, u64) {
        let rows = parts.iter().map(|part| part.shape[0]).sum();
        let t = Tensor::persistent("w", format, rows, parts[0].shape[1], &device.limits()).unwrap();
        t.write_stored(device, parts).unwrap();
        let mut words = Vec::new();
        for p in t.pieces() {
            let span = p.span.prefix(format.n_words(p.rows * t.cols));
            match format {
                Format::F32 => words.extend(device.read_real(&span).unwrap().iter().map(|x| x.to_bits())),
                _ => words.extend(device.read_words(&span).unwrap()),
            }
        }
        (words, device.memory().mapped_bytes)
    }

    #[test]
    fn tensors_of_a_file_are_the_same_kept_repacked_and_copied() {
        let cols = 512;
        for format in Format::all() {
            let n_bytes = format.dtype().bytes_of(&[8, cols]).unwrap();
            let expected = words(format, &bytes(n_bytes));
            let keeps = format.has_file_layout();
            assert_eq!(keeps, expected.len() * 4 == n_bytes, "{format:?}");
            // The alignment of the file, and whether the parts are in the order of the file.
            for (before, is_kept) in [(0, keeps), (32, keeps), (2, false), (33, false)] {
                let parts = stored(format, &[3, 5], cols, before);
                let whole = stored(format, &[8], cols, before);
                let owned = HostTensor::new(format.dtype(), vec![8, cols], bytes(n_bytes)).unwrap();
                for (parts, is_kept) in
                    [(vec![&parts[0], &parts[1]], is_kept), (vec![&whole[0]], is_kept), (vec![&owned], false)]
                {
                    let kept = if is_kept { 4 * expected.len() as u64 } else { 0 };
                    let got = uploaded(&mut CpuExecutor::<f32>::new(), format, &parts);
                    assert!(got == (expected.clone(), kept), "{format:?} behind {before} bytes");
                    let got = uploaded(&mut CpuExecutor::<f64>::new(), format, &parts);
                    assert!(got == (expected.clone(), 0), "{format:?} behind {before} bytes in f64");
                }
                let mut cut = CpuExecutor::<f32>::with_binding_limit(4096);
                let got = uploaded(&mut cut, format, &[&whole[0]]);
                assert!(got.0 == expected && (got.1 > 0) == is_kept, "{format:?} in pieces");
            }
            let [second, first] = &stored(format, &[5, 3], cols, 0)[..] else { unreachable!() };
            let swapped = [words(format, &first.bytes), words(format, &second.bytes)].concat();
            let got = uploaded(&mut CpuExecutor::<f32>::new(), format, &[first, second]);
            assert!(got == (swapped, 0), "{format:?} in another order than the file");
        }
    }

    #[test]
    fn an_odd_number_of_halves_ends_in_a_padded_word() {
        for format in [Format::Bf16, Format::F16] {
            let odd = stored(format, &[1], 7, 0);
            let (words, kept) = uploaded(&mut CpuExecutor::<f32>::new(), format, &[&odd[0]]);
            let expected = [&bytes(14)[..], &[0, 0]].concat();
            assert_eq!((bytemuck::cast_slice::<u32, u8>(&words), kept), (&expected[..], 0));
        }
    }

    #[test]
    fn an_f32_tensor_takes_the_values_of_another_type() {
        let halves = stored(Format::F16, &[2], 4, 0).remove(0);
        let mut device = CpuExecutor::<f32>::new();
        let t = Tensor::persistent("w", Format::F32, 2, 4, &device.limits()).unwrap();
        t.write_stored(&mut device, &[&halves]).unwrap();
        let values = bytes(16).as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect::<Vec<_>>();
        assert_eq!(t.read(&mut device).unwrap(), values);
    }

    #[test]
    fn large_tensors_are_cut_and_come_back_whole() {
        let mut device = CpuExecutor::<f32>::with_binding_limit(1024);
        let t = Tensor::persistent("w", Format::F32, 37, 24, &device.limits()).unwrap();
        assert!(t.pieces().len() > 3);
        let values: Vec<f32> = (0..37 * 24).map(|i| i as f32).collect();
        t.write(&mut device, &values).unwrap();
        assert_eq!(t.read(&mut device).unwrap(), values);
    }

    #[test]
    fn pieces_have_indices_of_32_bits() {
        let limits = CpuExecutor::<f32>::new().limits();
        let (rows, cols) = (1 << 20, 1 << 13);
        for format in [Format::F32, Format::Bf16, Format::Q4K] {
            let cuts = cut_rows("w", format, rows, cols, &limits).unwrap();
            assert_eq!(cuts, [(0, (1 << 19) - 1), ((1 << 19) - 1, (1 << 19) - 1), ((1 << 20) - 2, 2)], "{format:?}");
        }
        // Words that one binding holds may be more elements than that.
        let limits = DeviceLimits { max_binding_bytes: 16 << 30, ..limits };
        let cuts = cut_rows("w", Format::Q4K, rows, cols, &limits).unwrap();
        assert_eq!(cuts.len(), 3);
        assert_eq!(cut_rows("w", Format::Q4K, rows / 2 - 1, cols, &limits).unwrap(), [(0, rows / 2 - 1)]);
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused() {
        let limits = CpuExecutor::<f32>::with_binding_limit(1024).limits();
        let e = Tensor::persistent("w", Format::F32, 2, 1000, &limits).unwrap_err();
        assert!(e.to_string().contains("one row of 1000"), "{e}");
    }
}
