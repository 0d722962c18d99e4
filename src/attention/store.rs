//! The kernel that stores the keys and values of a chunk in the cache, which may be a ring.

use super::layout::NO_RING;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for};
use crate::kernels::case::{Case, Tolerance, real};
use crate::tensor::Tensor;
use crate::{params, wgsl};

params! {
    /// Parameters of `lrsa/store_rows`.
    pub struct StoreParams { n: u32, kv_cols: u32, first: u32, ring: u32 }
}

static STORE: KernelDef = KernelDef {
    label: "lrsa/store_rows",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/store_rows")],
    bindings: &[
        Binding::read("rows", Kind::Real, "[tokens, kv_cols]"),
        Binding::read_write("cache", Kind::Real, "[cache rows, kv_cols]"),
    ],
    params: StoreParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 0, bytes: 8 * d.param("n") }),
    reference_f32: store_reference,
    reference_f64: store_reference,
};

/// The kernels of this file.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&STORE, vec![])]
}

fn store_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: StoreParams = args.params();
    let [rows, cache] = args.buffers();
    let (rows, cache, cols) = (rows.real(), cache.real_mut(), p.kv_cols as usize);
    for (t, row) in rows[..p.n as usize].chunks_exact(cols).enumerate() {
        let at = ((p.first + t as u32) % p.ring) as usize * cols;
        cache[at..at + cols].copy_from_slice(row);
    }
}

/// Appends cache[(first + t) % ring] = rows[t].
pub(super) fn store(rec: &mut Recording, rows: &Tensor, cache: &Span, first: usize, ring: u32) {
    let n = rows.len();
    let params = StoreParams { n: n as u32, kv_cols: rows.cols as u32, first: first as u32, ring };
    rec.dispatch(&STORE, &[], params, &[rows.span(), cache], groups_for(n, 64));
}

fn store_case(name: &str, n: usize, cols: usize, cache_rows: usize, first: usize, ring: u32) -> Case {
    let inputs = vec![real(1, n, cols, 1.0).frozen(), real(2, cache_rows, cols, 1.0).frozen()];
    Case::new(format!("lrsa/store_rows: {name}"), inputs, Tolerance::EXACT, move |rec, b| {
        store(rec, &b.tensors[0], b.tensors[1].span(), first, ring);
        Ok((vec![b.tensors[1].clone()], None))
    })
}

/// The cases of this file.
pub(super) fn cases() -> Vec<Case> {
    vec![
        store_case("a ring that wraps", 7, 12, 10, 6, 10),
        store_case("one row, no ring", 1, 8, 5, 4, NO_RING),
        store_case("beyond 16 bits", 70, 1024, 80, 75, 80),
        store_case("whole workgroups", 6, 64, 9, 7, 8),
        store_case("bench", 512, 2048, 1024, 300, NO_RING).bench(),
    ]
}
