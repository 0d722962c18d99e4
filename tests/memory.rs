//! Training memory: linear in sequence length, smaller with recomputation, close to what is alive
//! at once.

mod common;

use std::path::Path;

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::Adapter;
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::optim::AdamW;
use longreach::train::{StepSettings, Stepper, TrainJob};

/// Peak transient bytes of one LoRA step of stories260K on one sequence of `n` tokens.
fn peak_bytes(n: usize, attention: Attention, recompute: bool) -> u64 {
    let source = WeightSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")).unwrap();
    let job = TrainJob::default();
    let adapter = Adapter::fresh(job.new_adapter(source.config()).unwrap(), source.config(), 0).unwrap();
    let mut device = CpuExecutor::<f32>::new();
    let mut loaded = load(&mut device, &source, Some(&adapter), Train::Adapter(job.decay)).unwrap();
    let ids: Vec<u32> = (0..n as u32).map(|i| i * 7 % 500 + 3).collect();
    let labels = ids.iter().map(|&id| id as i32).collect();
    let batch = [Batch::new(&[Example { ids, labels }])];
    let settings = StepSettings { recompute, ..StepSettings::default() };
    let mut stepper = Stepper::new(&mut device, &loaded, Box::new(AdamW::default()), settings).unwrap();
    let planned = stepper.planned_bytes(&mut device, &mut loaded, &batch[0], attention).unwrap();
    device.reset_peak();
    stepper.step(&mut device, &mut loaded, &batch, attention, 1e-3).unwrap();
    let memory = device.memory();
    println!(
        "{n} tokens, {attention}, recompute {recompute}: transients {} bytes, persistent {} bytes",
        memory.transient_peak_bytes, memory.persistent_bytes
    );
    let used = memory.persistent_bytes + memory.transient_peak_bytes;
    assert!(planned.abs_diff(used) * 100 < used, "planned {planned} bytes, used {used}");
    memory.transient_peak_bytes
}

#[test]
fn memory_grows_linearly_with_the_sequence() {
    // Dense attention takes quadratic time, so half as many tokens are enough.
    for (attention, n) in [(Attention::Dense, 256), (Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap()), 512)] {
        let mut peaks = Vec::new();
        for recompute in [false, true] {
            let [short, long] = [n, 2 * n].map(|n| peak_bytes(n, attention, recompute));
            let ratio = long as f64 / short as f64;
            assert!(ratio < 2.1, "{attention}, recompute {recompute}: {short} bytes, then {long}: {ratio}");
            peaks.push(long);
        }
        assert!(peaks[1] * 2 < peaks[0], "{attention}: recomputation needs {} bytes of {}", peaks[1], peaks[0]);
    }
}
