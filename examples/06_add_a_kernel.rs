//! Step 6: adds a kernel from outside the crate: the squared ReLU, y = max(x, 0)².
//!
//! A kernel needs its WGSL, its reference, its gradient and its case. The gradient check and the
//! comparison on every device follow from the case. Inside the crate the same parts are in two
//! places: the WGSL in `shaders/family/kernel.wgsl`, everything else in `src/kernels/family.rs`,
//! which lists its kernels in `kernels()` and its cases in `cases()`.
//!
//!     cargo run --example 06_add_a_kernel

use longreach::Result;
use longreach::gpu::{
    Binding, CpuExecutor, Executor, Features, KernelArgs, KernelDef, Kind, OpenOptions, Params as _, Real, Recording,
    Source, WgpuExecutor, adapters, groups_for, shader,
};
use longreach::kernels::case::{Case, Tolerance, real};
use longreach::kernels::op::{Applied, Op, when};
use longreach::tensor::Tensor;
use longreach::verify::gradient_check;
use longreach::verify::walk;

// 1. The shaders. Binding 0 holds the parameters, the buffers follow. The entry point is the last
//   part of the label.
const FORWARD_WGSL: &str = "
// y = max(x, 0)^2, element by element.  grid: n invocations, folded.
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;       // [n]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [n]

@compute @workgroup_size(64)
fn relu2(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        let r = max(x[i], 0.0);
        y[i] = r * r;
    }
}
";
const BACKWARD_WGSL: &str = "
// dx = 2 max(x, 0) dy, element by element.  grid: n invocations, folded.
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;        // [n]
@group(0) @binding(2) var<storage, read> dy: array<f32>;       // [n]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // [n]

@compute @workgroup_size(64)
fn relu2_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        dx[i] = 2.0 * max(x[i], 0.0) * dy[i];
    }
}
";

// 2. The parameters: the same members as in WGSL.
longreach::params! {
    /// Parameters of both kernels.
    pub struct Params {
        /// Elements.
        n: u32,
    }
}

// 3. The descriptions. Parts are concatenated; `common/grid` brings linear_index. `work` is the
// least that a dispatch has to do: here so many operations an element, on all the bytes that are
// bound.
static FORWARD: KernelDef = KernelDef {
    label: "example/relu2",
    suffix: "",
    parts: &[longreach::wgsl!("common/grid"), Source::new("example/relu2", FORWARD_WGSL)],
    bindings: &[Binding::read("x", Kind::Real, "[n]"), Binding::write("y", Kind::Real, "[n]")],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.param("n"))),
    reference_f32: forward_reference,
    reference_f64: forward_reference,
};
static BACKWARD: KernelDef = KernelDef {
    label: "example/relu2_backward",
    suffix: "",
    parts: &[longreach::wgsl!("common/grid"), Source::new("example/relu2_backward", BACKWARD_WGSL)],
    bindings: &[
        Binding::read("x", Kind::Real, "[n]"),
        Binding::read("dy", Kind::Real, "[n]"),
        Binding::write("dx", Kind::Real, "[n]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(3 * d.param("n"))),
    reference_f32: backward_reference,
    reference_f64: backward_reference,
};

// 4. The references: the same formula in Rust. The CPU executor runs it in f32; in f64 it is the
//   oracle for all devices.
fn forward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let [x, y] = args.buffers();
    for (y, &x) in y.real_mut().iter_mut().zip(x.real()) {
        let r = x.max(T::ZERO);
        *y = r * r;
    }
}

fn backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let [x, dy, dx] = args.buffers();
    for ((dx, &x), &dy) in dx.real_mut().iter_mut().zip(x.real()).zip(dy.real()) {
        *dx = T::of(2.0) * x.max(T::ZERO) * dy;
    }
}

// 5. The op: a forward that appends the command, and its gradient rule.
struct Relu2 {
    x: Tensor,
}

fn relu2(rec: &mut Recording, x: &Tensor) -> Result<Applied> {
    let y = Tensor::transient(rec, "relu2", x.rows, x.cols);
    let n = x.len();
    rec.dispatch(&FORWARD, &[], Params { n: n as u32 }, &[x.span(), y.span()], groups_for(n, 64));
    Ok((vec![y], Box::new(Relu2 { x: x.clone() })))
}

impl Op for Relu2 {
    fn label(&self) -> &'static str {
        FORWARD.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "relu2 dx", self.x.rows, self.x.cols);
            let (n, spans) = (self.x.len(), [self.x.span(), grads[0].span(), dx.span()]);
            rec.dispatch(&BACKWARD, &[], Params { n: n as u32 }, &spans, groups_for(n, 64));
            Ok(dx)
        })?;
        Ok(vec![dx])
    }
}

// 6. The case: one application to made-up inputs of an odd size.
fn case() -> Case {
    Case::new("example/relu2: odd", vec![real(1, 7, 37, 2.0)], Tolerance::ROUNDING, |rec, bound| {
        relu2(rec, &bound.tensors[0]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// Compares every dispatch of the case, forward and backward, with its f64 reference.
fn compare(device: &mut dyn Executor) -> Result<()> {
    let recorded = case().record(device)?;
    for difference in walk::compare(device, &recorded.recording)? {
        let verdict = if case().tolerance.allows(&difference) { "agrees" } else { "DISAGREES" };
        println!("{}: {} {verdict}, relative error {:.1e}", device.name(), difference.kernel, difference.relative());
        assert!(case().tolerance.allows(&difference), "{difference}");
    }
    Ok(())
}

fn main() -> Result<()> {
    // Checks that the WGSL matches its Rust description: entry point, bindings, access and
    // parameters.
    for kernel in [&FORWARD, &BACKWARD] {
        shader::check(kernel, &[], Features::NONE)?;
        println!("{}: shader and description agree", kernel.name());
    }
    // Checks that the gradient is the slope of the forward pass.
    for slope in gradient_check::check(&case())? {
        println!("gradient {:.9}, slope {:.9}", slope.analytic, slope.numeric);
        assert!(slope.relative_error() < 1e-6, "the gradient is not the slope");
    }
    // Checks that every device of this machine matches the reference: the CPU executor first, then
    // each adapter.
    compare(&mut CpuExecutor::<f32>::new())?;
    for adapter in adapters() {
        match WgpuExecutor::open(&adapter, &OpenOptions::default()) {
            Ok(mut device) => compare(&mut device)?,
            Err(e) => println!("left out: {e}"),
        }
    }
    Ok(())
}
