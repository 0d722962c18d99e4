//! Tests of slices: they hold all tiles in order, and change no bit of attention and its gradients.

use super::*;
use crate::attention::{Attention, Cache, LayerAttention, Lrsa, TrainingLayout, attend_training};
use crate::gpu::{CpuExecutor, Recording};
use crate::kernels::case::random;
use crate::tensor::{Format, Tensor, copy_tensor};

const HEADS: Heads = Heads { queries: 6, keys: 2, dim: 8 };

/// Tiles of `keys[i]` keys, whose queries follow each other.
fn tiles(keys: &[u32]) -> Vec<QueryTile> {
    let tile = |(i, &n_recent): (usize, &u32)| QueryTile {
        query: 2 * i as u32,
        n_queries: 2,
        n_recent,
        ..bytemuck::Zeroable::zeroed()
    };
    keys.iter().enumerate().map(tile).collect()
}

#[test]
fn slices_end_where_the_work_exceeds_the_bound() {
    // A tile whose first query sees n keys visits 2 (n + 1) pairs, with 6 operations in 48 channels.
    let tiles = tiles(&[4, 4, 9, 49, 1, 1]); // 10, 10, 20, 100, 4 and 4 pairs
    assert_eq!(tiles.iter().map(Tile::n_visited).collect::<Vec<_>>(), [10, 10, 20, 100, 4, 4]);
    let counts = |pairs: u64, fewest_groups: usize| -> Vec<usize> {
        let (words, slices) = laid_out(&tiles, HEADS, Bound { flops: 288 * pairs, fewest_groups });
        let mut read = Vec::new();
        for slice in &slices {
            assert!(slice.word.is_multiple_of(ELEMENT_ALIGNMENT));
            let of_slice: &[QueryTile] = bytemuck::cast_slice(&words[slice.word..][..9 * slice.n_tiles]);
            read.extend_from_slice(of_slice);
        }
        assert_eq!(read, tiles);
        assert!(words.len() <= most_words::<QueryTile>(tiles.len()));
        slices.iter().map(|s| s.n_tiles).collect()
    };
    assert_eq!(counts(40, 0), [3, 1, 2]);
    assert_eq!(counts(39, 0), [2, 1, 1, 2]);
    assert_eq!(counts(1, 0), [1; 6]);
    assert_eq!(counts(1000, 0), [6]);
    assert_eq!(counts(1, 5), [3, 3], "three tiles have six workgroups with two heads");
    assert_eq!(counts(1, 7), [4, 2]);
    let of_keys = KeyTile { n_keys: 3, query: 7, query_end: 12, ..bytemuck::Zeroable::zeroed() };
    assert_eq!(of_keys.n_visited(), 15);
    let (_, whole) = laid_out(&tiles, HEADS, Bound::NONE);
    assert_eq!(whole, [Slice { word: 0, n_tiles: 6 }]);
}

/// Output, dq and dkv of a batch, and the number of dispatches over tiles.
fn trained(attention: LayerAttention, bound: Bound) -> (Vec<Vec<f32>>, usize) {
    let device = &mut CpuExecutor::<f32>::new();
    let sequences = [(0, 150), (150, 3), (153, 90)];
    let layout = TrainingLayout::upload_within(device, attention, HEADS, &sequences, bound).unwrap();
    let limits = device.limits();
    let mut input = |seed, cols| {
        let t = Tensor::persistent("input", Format::F32, 243, cols, &limits).unwrap();
        t.write(device, &random(seed, 243 * cols, 1.0)).unwrap();
        t
    };
    let [q, kv, dout] = [(1, 48), (2, 32), (3, 48)].map(|(seed, cols)| input(seed, cols));
    let mut rec = Recording::new();
    let ((mut results, op), _) = attend_training(&mut rec, &q, &kv, &layout, HEADS.scale(), None).unwrap();
    let gradients = op.backward(&mut rec, &[dout], &[true, true]).unwrap();
    results.extend(gradients.into_iter().flatten());
    let n = rec.dispatches().filter(|d| d.kernel.bindings.iter().any(|b| b.name == "tiles")).count();
    let kept: Vec<Tensor> = results
        .iter()
        .map(|t| {
            let kept = Tensor::persistent("result", Format::F32, t.rows, t.cols, &limits).unwrap();
            copy_tensor(&mut rec, t, &kept);
            kept
        })
        .collect();
    device.run(&rec).unwrap();
    (kept.iter().map(|t| t.read(device).unwrap()).collect(), n)
}

#[test]
fn slices_change_no_bit_of_attention_and_its_gradients() {
    let lrsa = Attention::Lrsa(Lrsa::new(3, 10, 0.4).unwrap());
    for attention in [Attention::Dense.into(), lrsa.into(), LayerAttention::Window(20)] {
        let (whole, n_whole) = trained(attention, Bound::NONE);
        assert_eq!((whole.len(), n_whole), (3, if attention.lrsa().is_some() { 4 } else { 3 }), "{attention}");
        assert!(whole.iter().flatten().all(|x| x.is_finite()));
        for fewest_groups in [1, 5] {
            let (sliced, n) = trained(attention, Bound { flops: 1, fewest_groups });
            assert!(n > n_whole + 3, "{attention}: {n} dispatches");
            assert!(sliced == whole, "{attention} in {n} dispatches");
        }
    }
}

/// The output of 256 tokens that are fed in chunks of up to 128, and the number of dispatches of their
/// attention.
fn prefilled(attention: LayerAttention, bound: Bound) -> (Vec<f32>, usize) {
    let device = &mut CpuExecutor::<f32>::new();
    let mut cache = Cache::new(&[attention], HEADS, 300, 128).unwrap();
    let (mut result, mut n) = (Vec::new(), 0);
    while cache.n_tokens() < 256 {
        let step = cache.begin_within(device, cache.chunk(256 - cache.n_tokens()), bound).unwrap();
        let limits = device.limits();
        let mut input = |seed, cols| {
            let t = Tensor::persistent("input", Format::F32, step.n_tokens, cols, &limits).unwrap();
            t.write(device, &random(seed + step.position as u64, step.n_tokens * cols, 1.0)).unwrap();
            t
        };
        let (q, kv) = (input(1, 48), input(2, 32));
        let mut rec = Recording::new();
        let out = cache.attend(&mut rec, 0, &step, &q, &kv, HEADS.scale());
        let kept = Tensor::persistent("result", Format::F32, out.rows, out.cols, &limits).unwrap();
        copy_tensor(&mut rec, &out, &kept);
        device.run(&rec).unwrap();
        result.extend(kept.read(device).unwrap());
        n += rec.dispatches().filter(|d| d.kernel.label == "attend/forward").count();
        cache.commit(&step);
    }
    (result, n)
}

#[test]
fn slices_change_no_bit_of_prefill() {
    let lrsa = Attention::Lrsa(Lrsa::new(4, 64, 0.25).unwrap());
    for attention in [Attention::Dense.into(), lrsa.into(), LayerAttention::Window(100)] {
        let (whole, n_whole) = prefilled(attention, Bound::NONE);
        assert_eq!(whole.len(), 256 * 48);
        let (sliced, n) = prefilled(attention, Bound { flops: 1, fewest_groups: 1 });
        assert!(n > n_whole && sliced == whole, "{attention}: {n} dispatches instead of {n_whole}");
    }
}
