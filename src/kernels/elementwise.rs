//! Elementwise kernels: sum of two tensors, accumulation, scaling by a number or a device factor.

use super::case::{Case, Tolerance, real};
use super::op::{Applied, Op};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size of the elementwise shaders.
const GROUP: usize = 64;
/// Elements that the references process at a time.
const BLOCK: usize = 1024;

params! {
    /// The number of elements.
    pub struct Params {
        /// Elements of the output.
        n: u32,
    }
}

params! {
    /// The number of elements and a factor.
    pub struct ScaleParams {
        /// Elements of the output.
        n: u32,
        /// The factor.
        factor: f32,
    }
}

static ADD: KernelDef = KernelDef {
    label: "elementwise/add",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/add")],
    bindings: &[
        Binding::read("a", Kind::Real, "[n]"),
        Binding::read("b", Kind::Real, "[n]"),
        Binding::write("out", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: add_reference,
    reference_f64: add_reference,
};

static ADD_INTO: KernelDef = KernelDef {
    label: "elementwise/add_into",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/add_into")],
    bindings: &[Binding::read("a", Kind::Real, "[n]"), Binding::read_write("out", Kind::Real, "[n]")],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: add_into_reference,
    reference_f64: add_into_reference,
};

static SCALE: KernelDef = KernelDef {
    label: "elementwise/scale",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/scale")],
    bindings: &[Binding::read("x", Kind::Real, "[n]"), Binding::write("out", Kind::Real, "[n]")],
    params: ScaleParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: scale_reference,
    reference_f64: scale_reference,
};

static SCALE_BY: KernelDef = KernelDef {
    label: "elementwise/scale_by",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("elementwise/scale_by")],
    bindings: &[
        Binding::read("x", Kind::Real, "[n]"),
        Binding::read("factor", Kind::Real, "[1]"),
        Binding::write("out", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: scale_by_reference,
    reference_f64: scale_by_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&ADD, &ADD_INTO, &SCALE, &SCALE_BY].map(|k| (k, vec![])).to_vec()
}

fn add_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [a, b, out] = args.buffers();
    let (a, b, out) = (a.real(), b.real(), out.real_mut());
    for_rows(n, &mut out[..n], BLOCK, |block, out| {
        let from = block * BLOCK;
        let inputs = a[from..][..out.len()].iter().zip(&b[from..][..out.len()]);
        out.iter_mut().zip(inputs).for_each(|(out, (&a, &b))| *out = a + b);
    });
}

fn add_into_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [a, out] = args.buffers();
    let (a, out) = (a.real(), out.real_mut());
    for_rows(n, &mut out[..n], BLOCK, |block, out| {
        let a = &a[block * BLOCK..][..out.len()];
        out.iter_mut().zip(a).for_each(|(out, &a)| *out += a);
    });
}

fn scale_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ScaleParams = args.params();
    let [x, out] = args.buffers();
    let (n, x, factor) = (p.n as usize, x.real(), T::of(p.factor));
    for_rows(n, &mut out.real_mut()[..n], BLOCK, |block, out| {
        let x = &x[block * BLOCK..][..out.len()];
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * factor);
    });
}

fn scale_by_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<Params>().n as usize;
    let [x, factor, out] = args.buffers();
    let (x, factor) = (x.real(), factor.real()[0]);
    for_rows(n, &mut out.real_mut()[..n], BLOCK, |block, out| {
        let x = &x[block * BLOCK..][..out.len()];
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * factor);
    });
}

struct Add;

impl Op for Add {
    fn label(&self) -> &'static str {
        ADD.label
    }

    fn backward(&self, _: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(need.iter().map(|n| n.then(|| grads[0].clone())).collect())
    }

    fn passes_on(&self) -> bool {
        true
    }
}

/// a + b for two activations of one shape.
pub fn add(rec: &mut Recording, a: &Tensor, b: &Tensor) -> Result<Applied> {
    assert_eq!((a.rows, a.cols), (b.rows, b.cols), "shapes of a sum");
    let out = Tensor::transient(rec, "add", a.rows, a.cols);
    let params = Params { n: a.len() as u32 };
    rec.dispatch(&ADD, &[], params, &[a.span(), b.span(), out.span()], groups_for(a.len(), GROUP));
    Ok((vec![out], Box::new(Add)))
}

/// Appends target += x, slice by slice; the tape accumulates gradients with it.
pub fn add_into(rec: &mut Recording, x: &Tensor, target: &Tensor) {
    assert_eq!(
        (x.rows, x.cols, x.pieces().len()),
        (target.rows, target.cols, target.pieces().len()),
        "shapes of a sum"
    );
    for (a, b) in x.pieces().iter().zip(target.pieces()) {
        let n = a.rows * x.cols;
        rec.dispatch(&ADD_INTO, &[], Params { n: n as u32 }, &[&a.span, &b.span], groups_for(n, GROUP));
    }
}

struct Scale {
    factor: f32,
}

impl Scale {
    fn append(&self, rec: &mut Recording, x: &Tensor) -> Tensor {
        let out = Tensor::transient(rec, "scale", x.rows, x.cols);
        let params = ScaleParams { n: x.len() as u32, factor: self.factor };
        rec.dispatch(&SCALE, &[], params, &[x.span(), out.span()], groups_for(x.len(), GROUP));
        out
    }
}

impl Op for Scale {
    fn label(&self) -> &'static str {
        SCALE.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![need[0].then(|| self.append(rec, &grads[0]))])
    }
}

/// factor · x for an activation.
pub fn scale(rec: &mut Recording, x: &Tensor, factor: f32) -> Result<Applied> {
    let op = Scale { factor };
    Ok((vec![op.append(rec, x)], Box::new(op)))
}

/// Appends x · factor, slice by slice: x may be cut in any way, factor [1, 1] is on the device.
/// Multiplies a gradient saved for a unit loss by the gradient of the loss; has no gradient itself.
pub fn scale_by(rec: &mut Recording, x: &Tensor, factor: &Tensor) -> Tensor {
    assert_eq!(factor.len(), 1, "a factor is one number");
    let out = Tensor::transient_like(rec, "scale_by", x);
    for (a, b) in x.pieces().iter().zip(out.pieces()) {
        let n = a.rows * x.cols;
        let spans = [&a.span, factor.span(), &b.span];
        rec.dispatch(&SCALE_BY, &[], Params { n: n as u32 }, &spans, groups_for(n, GROUP));
    }
    out
}

fn add_case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs = vec![real(1, rows, cols, spread), real(2, rows, cols, spread)];
    Case::new(format!("elementwise/add: {name}"), inputs, Tolerance::ROUNDING, |rec, b| {
        add(rec, &b.tensors[0], &b.tensors[1]).map(|(outs, op)| (outs, Some(op)))
    })
}

fn add_into_case(name: &str, rows: usize, cols: usize) -> Case {
    let inputs = vec![real(1, rows, cols, 1.0), real(2, rows, cols, 1.0)];
    let inputs = inputs.into_iter().map(super::case::Input::frozen).collect();
    Case::new(format!("elementwise/add_into: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let out = Tensor::transient(rec, "sum", rows, cols);
        crate::tensor::copy_tensor(rec, &b.tensors[0], &out);
        add_into(rec, &b.tensors[1], &out);
        Ok((vec![out], None))
    })
}

fn scale_case(name: &str, rows: usize, cols: usize) -> Case {
    let inputs = vec![real(1, rows, cols, 1.0)];
    Case::new(format!("elementwise/scale: {name}"), inputs, Tolerance::ROUNDING, |rec, b| {
        scale(rec, &b.tensors[0], -0.22).map(|(outs, op)| (outs, Some(op)))
    })
}

fn scale_by_case(name: &str, rows: usize, cols: usize) -> Case {
    let inputs = vec![real(1, rows, cols, 1.0).frozen(), real(2, 1, 1, 3.0).frozen()];
    Case::new(format!("elementwise/scale_by: {name}"), inputs, Tolerance::ROUNDING, |rec, b| {
        Ok((vec![scale_by(rec, &b.tensors[0], &b.tensors[1])], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        add_case("odd", 3, 37, 1.0),
        add_case("one", 1, 1, 1.0),
        add_case("large values", 5, 64, 1e6),
        // The elements fill an even number of workgroups exactly, so skipping any workgroup loses
        // the last one.
        add_case("whole workgroups", 6, 64, 1.0),
        add_case("beyond 16 bits", 70, 1000, 1.0),
        add_into_case("beyond 16 bits", 70, 1000),
        scale_by_case("beyond 16 bits", 70, 1000),
        add_case("small values", 3, 37, 1e-8),
        add_into_case("odd", 3, 37),
        add_into_case("whole workgroups", 6, 64),
        scale_case("odd", 3, 37),
        scale_case("whole workgroups", 6, 64),
        scale_case("beyond 16 bits", 70, 1000),
        scale_by_case("odd", 3, 37),
        scale_by_case("whole workgroups", 6, 64),
        add_case("bench", 512, 2048, 1.0).bench(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CpuExecutor, Executor};
    use crate::tensor::Format;

    #[test]
    fn every_slice_of_a_tensor_is_scaled() {
        let mut device = CpuExecutor::<f32>::with_binding_limit(1024);
        let tensor = |label, rows, cols| Tensor::persistent(label, Format::F32, rows, cols, &device.limits()).unwrap();
        let (x, factor, kept) = (tensor("x", 37, 24), tensor("factor", 1, 1), tensor("kept", 37, 24));
        assert!(x.pieces().len() > 1);
        let values: Vec<f32> = (0..37 * 24).map(|i| i as f32).collect();
        x.write(&mut device, &values).unwrap();
        factor.write(&mut device, &[-2.0]).unwrap();
        let mut rec = Recording::new();
        let scaled = scale_by(&mut rec, &x, &factor);
        crate::tensor::copy_tensor(&mut rec, &scaled, &kept);
        device.run(&rec).unwrap();
        let expected: Vec<f32> = values.iter().map(|v| v * -2.0).collect();
        assert_eq!(kept.read(&mut device).unwrap(), expected);
    }

    #[test]
    fn dispatches_side_by_side_wait_for_what_they_need() {
        let run = |side_by_side: bool| {
            let mut device = CpuExecutor::<f32>::new();
            let tensors = [1.0, 2.0, 4.0, 8.0].map(|value| {
                let tensor = Tensor::persistent("x", Format::F32, 1, 64, &device.limits()).unwrap();
                tensor.write(&mut device, &[value; 64]).unwrap();
                tensor
            });
            let mut rec = Recording::new();
            for (from, to) in [(0, 1), (0, 2), (1, 2), (3, 1), (2, 0), (1, 3)] {
                add_into(&mut rec, &tensors[from], &tensors[to]);
            }
            if side_by_side {
                rec.mark_side_by_side(0);
            }
            device.run(&rec).unwrap();
            tensors.map(|tensor| tensor.read(&mut device).unwrap()[63])
        };
        assert_eq!(run(true), [9.0, 11.0, 8.0, 19.0]);
        assert_eq!(run(true), run(false));
    }
}
