//! Every weight format: dequantised values equal those of PyPI `gguf` bit for bit.
//!
//! A model keeps the format from its GGUF file to its logits.
//! `weight_formats/make_blocks.py` generates the blocks; a format of the table without blocks
//! fails.

mod common;

use std::path::Path;

use longreach::Result;
use longreach::attention::{Attention, Lrsa};
use longreach::autograd::Tape;
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::formats::dequant::to_f32;
use longreach::formats::dtype::DType;
use longreach::formats::host_tensor::HostTensor;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, DeviceLimits, Executor, MemoryUse, Recording, Span, Timing};
use longreach::kernels::embedding::{TokenIndex, embedding};
use longreach::kernels::matmul::matmul_nt;
use longreach::kernels::sample::Sampling;
use longreach::tensor::{Format, Tensor, copy_tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;

/// Blocks of a format as in a file, and their values.
struct Golden {
    blocks: Vec<u8>,
    values: Vec<f32>,
    rows: usize,
}

impl Golden {
    fn of(dtype: DType) -> Self {
        let file = SafeTensors::deserialize(include_bytes!("weight_formats/blocks.safetensors")).unwrap();
        let tensor = |what| file.tensor(&format!("{dtype}.{what}")).unwrap_or_else(|e| panic!("{dtype} {what}: {e}"));
        let (blocks, values) = (tensor("blocks"), tensor("values"));
        assert_eq!(blocks.shape(), [values.shape()[0], dtype.block_bytes()], "{dtype}");
        assert_eq!(values.shape()[1], dtype.block_len(), "{dtype}");
        let values = values.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Self { blocks: blocks.data().to_vec(), values, rows: blocks.shape()[0] }
    }
}

/// All formats except f32.
fn packed() -> impl Iterator<Item = Format> {
    Format::all().filter(|format| *format != Format::F32)
}

fn assert_same_bits(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{what}: element {i} is {a:e}, not {b:e}");
    }
}

#[test]
fn the_host_reads_what_gguf_reads() {
    for format in packed() {
        let golden = Golden::of(format.dtype());
        assert!(golden.values.iter().any(|x| *x > 1e4) && golden.values.iter().any(|x| *x < -1e4), "{format:?}");
        assert_same_bits(&format!("{format:?}"), &to_f32(format.dtype(), &golden.blocks).unwrap(), &golden.values);
    }
}

/// Uploads the golden blocks, one per row; 16-bit elements are one row.
fn upload(device: &mut dyn Executor, format: Format, golden: &Golden) -> Tensor {
    let shape = if format.is_quantised() { [golden.rows, format.block_len()] } else { [1, golden.rows] };
    let table = Tensor::persistent("golden", format, shape[0], shape[1], &device.limits()).unwrap();
    let stored = HostTensor::new(format.dtype(), shape.to_vec(), golden.blocks.clone()).unwrap();
    table.write_stored(device, &[&stored]).unwrap();
    table
}

/// Runs `record`, which returns a tensor, and reads that tensor.
fn run(device: &mut dyn Executor, record: impl FnOnce(&mut Recording) -> Tensor) -> Vec<f32> {
    let mut rec = Recording::new();
    let out = record(&mut rec);
    let kept = Tensor::persistent("kept", Format::F32, out.rows, out.cols, &device.limits()).unwrap();
    copy_tensor(&mut rec, &out, &kept);
    device.run(&rec).unwrap();
    kept.read(device).unwrap()
}

/// Looks up every row, and multiplies rows of the identity: all at once, and one at a time as
/// decode does.
fn check_device(device: &mut dyn Executor) {
    for format in packed() {
        let golden = Golden::of(format.dtype());
        let table = upload(device, format, &golden);
        let ids: Vec<u32> = (0..table.rows as u32).collect();
        let index = TokenIndex::upload(device, &ids, false).unwrap();
        let rows = run(device, |rec| embedding(rec, &table, &index, 1.0).unwrap().0.remove(0));
        let is_normal = |x: &f32| *x == 0.0 || x.abs() >= f32::MIN_POSITIVE;
        // Devices may flush f32 subnormals, which bfloat16 can represent, and need not support
        // infinities.
        let known: Vec<usize> = (0..rows.len()).filter(|&i| is_normal(&golden.values[i])).collect();
        let of = |values: &[f32]| known.iter().map(|&i| values[i]).filter(|x| x.is_finite()).collect::<Vec<_>>();
        assert_same_bits(&format!("{format:?} looked up"), &of(&rows), &of(&golden.values));
        if golden.values.iter().any(|x| !x.is_finite()) {
            continue; // 0 · infinity would spread over the sums
        }
        let n = table.cols;
        let identity = Tensor::persistent("identity", Format::F32, n, n, &device.limits()).unwrap();
        let one_at = |column: usize| (0..n).map(move |c| f32::from(u8::from(c == column)));
        identity.write(device, &(0..n).flat_map(one_at).collect::<Vec<_>>()).unwrap();
        let expect = |what: &str, got: &[f32], columns: &[usize]| {
            for (row, &column) in got.chunks(table.rows).zip(columns) {
                for (r, got) in row.iter().enumerate() {
                    let expected = golden.values[r * n + column];
                    assert!(
                        *got == expected || !is_normal(&expected) && *got == 0.0,
                        "{format:?} {what}: row {r}, element {column} is {got:e}, not {expected:e}"
                    );
                }
            }
        };
        let all = run(device, |rec| {
            let out = Tensor::transient(rec, "product", n, table.rows);
            matmul_nt(rec, &identity, &table, &out, 1.0, 0.0);
            out
        });
        expect("times the identity", &all, &(0..n).collect::<Vec<_>>());
        for column in [0, 1, n / 2 - 1, n / 2, n - 1] {
            let x = Tensor::persistent("one", Format::F32, 1, n, &device.limits()).unwrap();
            x.write(device, &one_at(column).collect::<Vec<_>>()).unwrap();
            let row = run(device, |rec| {
                let out = Tensor::transient(rec, "product", 1, table.rows);
                matmul_nt(rec, &x, &table, &out, 1.0, 0.0);
                out
            });
            expect("times one row", &row, &[column]);
        }
    }
}

#[test]
fn devices_read_what_gguf_reads() {
    check_device(&mut CpuExecutor::<f32>::new());
    check_device(&mut CpuExecutor::<f64>::new());
    let Some(mut device) = common::software_device() else { return };
    check_device(&mut device);
    let Some(mut device) = common::minimal_device() else { return };
    check_device(&mut device);
}

const HIDDEN: usize = 256;
const INNER: usize = 512;
const VOCAB: usize = 64;

/// A matrix of random blocks with moderate scales; ones for a vector.
fn weight(rng: &mut StdRng, dtype: DType, shape: &[usize]) -> HostTensor {
    let (Some(layout), [rows, cols]) = (dtype.block_layout(), shape) else {
        return HostTensor::from_f32(shape, &vec![1.0; shape.iter().product()]);
    };
    let mut bytes: Vec<u8> = (0..rows * cols / layout.elements * layout.bytes).map(|_| rng.random()).collect();
    for block in bytes.chunks_exact_mut(layout.bytes) {
        layout.write_scales(block, |size| size * rng.random_range(0.02..0.05));
    }
    HostTensor::new(dtype, shape.to_vec(), bytes).unwrap()
}

/// The tensors of a two-block Llama whose matrices have this type.
fn tensors(dtype: DType) -> Vec<(String, HostTensor)> {
    let mut shapes = vec![
        ("token_embd.weight".to_string(), vec![VOCAB, HIDDEN]),
        ("output.weight".to_string(), vec![VOCAB, HIDDEN]),
        ("output_norm.weight".to_string(), vec![HIDDEN]),
    ];
    for block in 0..2 {
        for (name, shape) in [
            ("attn_norm", vec![HIDDEN]),
            ("attn_q", vec![HIDDEN, HIDDEN]),
            ("attn_k", vec![HIDDEN / 2, HIDDEN]),
            ("attn_v", vec![HIDDEN / 2, HIDDEN]),
            ("attn_output", vec![HIDDEN, HIDDEN]),
            ("ffn_norm", vec![HIDDEN]),
            ("ffn_gate", vec![INNER, HIDDEN]),
            ("ffn_up", vec![INNER, HIDDEN]),
            ("ffn_down", vec![HIDDEN, INNER]),
        ] {
            shapes.push((format!("blk.{block}.{name}.weight"), shape));
        }
    }
    let mut rng = StdRng::seed_from_u64(u64::from(dtype.ggml()));
    shapes.into_iter().map(|(name, shape)| (name, weight(&mut rng, dtype, &shape))).collect()
}

/// Writes a GGUF file of version 3 with the sizes of that Llama.
fn write_gguf(path: &Path, tensors: &[(String, HostTensor)]) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut pairs = vec![[text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat()];
    let mut pair = |key: &str, kind: u32, bytes: [u8; 4]| {
        pairs.push([text(&format!("llama.{key}")), kind.to_le_bytes().to_vec(), bytes.to_vec()].concat());
    };
    for (key, value) in [
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("block_count", 2),
        ("context_length", 128),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        pair(key, 4, (value as u32).to_le_bytes());
    }
    pair("attention.layer_norm_rms_epsilon", 6, 1e-5f32.to_le_bytes());
    pair("rope.freq_base", 6, 1e4f32.to_le_bytes());
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    out.extend(pairs.concat());
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        out.extend(text(name));
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(tensor.dtype.ggml().to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend_from_slice(&tensor.bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    std::fs::write(path, [out, data].concat()).unwrap();
}

/// Logits of 40 tokens in chunks, and the variants of the weight-reading kernels in chunks of 7
/// tokens and of one token.
fn outcome(device: &mut dyn Executor, path: &Path, chunk: usize) -> (Vec<f32>, Vec<String>) {
    let mut model = load(device, &WeightSource::open(path).unwrap(), None, Train::Nothing).unwrap().model;
    let mut variants = vec![format!("{:?}", model.head().value.format)];
    for n in [7, 1] {
        let mut cache = model.cache(Attention::Dense, 40, 40).unwrap();
        model.reserve_positions(device, 40).unwrap();
        let ids = TokenIndex::upload(device, &vec![1; n], false).unwrap();
        let step = cache.begin(device, n).unwrap();
        let mut tape = Tape::inference();
        model.forward_cached(&mut tape, &ids, &cache, &step).unwrap();
        let reads_weights = |label: &str| label.starts_with("matmul/") || label == "embedding/embedding";
        let names = tape.rec.dispatches().map(|d| d.kernel).filter(|k| reads_weights(k.label)).map(|k| k.name());
        variants.extend(names);
    }
    let attention = Attention::Lrsa(Lrsa::new(2, 8, 0.5).unwrap());
    let mut session = Session::new(device, &mut model, attention, 40, chunk, Sampling::default(), 0).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * 29 % VOCAB as u32).collect();
    (session.feed_all_logits(device, &model, &ids).unwrap(), variants)
}

fn check_model(device: &mut dyn Executor, chunk: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (stored_path, plain_path) = (folder.path().join("stored.gguf"), folder.path().join("plain.gguf"));
    for format in Format::QUANTISED {
        let stored = tensors(format.dtype());
        let plain: Vec<_> = stored
            .iter()
            .map(|(name, t)| (name.clone(), HostTensor::from_f32(&t.shape, &t.to_f32().unwrap())))
            .collect();
        write_gguf(&stored_path, &stored);
        write_gguf(&plain_path, &plain);
        let (got, variants) = outcome(device, &stored_path, chunk);
        let (expected, plain_variants) = outcome(device, &plain_path, chunk);
        let name = format!("{format:?}").to_lowercase();
        assert_eq!(variants.len(), plain_variants.len(), "{format:?}");
        for label in ["embedding/embedding", "matmul/tile", "matmul/normed_row"] {
            assert!(variants.iter().any(|v| v.starts_with(label)), "{format:?}: {variants:?}");
        }
        for variant in &variants {
            assert!(variant.trim_end_matches(')').to_lowercase().ends_with(&name), "{format:?}: {variant}");
        }
        let size = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(size > 0.05 && size.is_finite(), "{format:?}: something is said, up to {size}");
        for (i, (a, b)) in expected.iter().zip(&got).enumerate() {
            assert!((a - b).abs() < 1e-4 * size, "{format:?} in chunks of {chunk}: logit {i} is {b}, not {a}");
        }
    }
}

#[test]
fn a_model_of_each_format_keeps_it_and_says_what_its_values_say() {
    check_model(&mut CpuExecutor::<f32>::new(), 1);
    check_model(&mut CpuExecutor::<f32>::new(), 16);
    let Some(mut device) = common::software_device() else { return };
    check_model(&mut device, 16);
}

/// The CPU executor without the pages of files: every upload is a copy.
struct Copying(CpuExecutor<f32>);

impl Executor for Copying {
    fn name(&self) -> String {
        self.0.name()
    }
    fn limits(&self) -> DeviceLimits {
        self.0.limits()
    }
    fn check(&self, recording: &Recording) -> Result<()> {
        self.0.check(recording)
    }
    fn run(&mut self, recording: &Recording) -> Result<()> {
        self.0.run(recording)
    }
    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        self.0.run_timed(recording)
    }
    fn wait(&mut self) -> Result<()> {
        self.0.wait()
    }
    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        self.0.write_real(span, data)
    }
    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        self.0.write_f64(span, data)
    }
    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        self.0.write_words(span, data)
    }
    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        self.0.read_real(span)
    }
    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.0.read_f64(span)
    }
    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.0.read_words(span)
    }
    fn memory(&self) -> MemoryUse {
        self.0.memory()
    }
    fn reset_peak(&mut self) {
        self.0.reset_peak();
    }
}

/// Checks that a model's logits are the same to the bit, whether pages of its files are kept or copied.
/// Returns the bytes of pages that are kept.
fn check_kept(path: &Path) -> u64 {
    let (mut keeping, mut copying) = (CpuExecutor::<f32>::new(), Copying(CpuExecutor::new()));
    for chunk in [40, 1] {
        let (kept, copied) = (outcome(&mut keeping, path, chunk).0, outcome(&mut copying, path, chunk).0);
        assert!(kept.iter().all(|x| x.is_finite()) && kept.iter().any(|x| x.abs() > 0.01), "{}", path.display());
        assert_same_bits(&path.display().to_string(), &kept, &copied);
    }
    assert_eq!(copying.memory().mapped_bytes, 0);
    let loaded = load(&mut keeping, &WeightSource::open(path).unwrap(), None, Train::Nothing).unwrap();
    let kept = keeping.memory().mapped_bytes;
    drop(loaded);
    kept
}

#[test]
fn pages_of_a_gguf_file_give_the_logits_of_copies() {
    let folder = tempfile::tempdir().unwrap();
    for format in Format::QUANTISED {
        let path = folder.path().join(format!("{}.gguf", format.dtype()));
        let stored = tensors(format.dtype());
        write_gguf(&path, &stored);
        // q and k have another order of rows in the file, and v is stacked on them.
        let is_repacked = |name: &str| ["attn_q.", "attn_k.", "attn_v."].iter().any(|part| name.contains(part));
        let bytes = |t: &HostTensor| t.bytes.len() as u64;
        let (vectors, matrices): (Vec<_>, Vec<_>) = stored.iter().partition(|(_, t)| t.shape.len() == 1);
        let kept = matrices.iter().filter(|(name, _)| format.has_file_layout() && !is_repacked(name));
        let expected: u64 = vectors.iter().chain(kept).map(|(_, t)| bytes(t)).sum();
        assert_eq!(check_kept(&path), expected, "{format:?}");
    }
}

#[test]
fn pages_of_safetensors_give_the_logits_of_copies() {
    for case in ["llama-gqa", "qwen2-bias-tied", "qwen3-qknorm", "gemma3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
        assert!(check_kept(&path) > 0, "{case}");
    }
}
