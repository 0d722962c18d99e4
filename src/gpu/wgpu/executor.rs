//! Runs recordings on a GPU through wgpu, in submits of bounded length.
//!
//! Errors never panic: callbacks collect uncaptured errors and device loss (`faults.rs`), and the
//! next call returns them. `device.rs` holds the device and submits, `pipelines.rs` holds compiled
//! kernels and `memory.rs` device memory, and `encode.rs` encodes a submit.

use std::time::{Duration, Instant};

use super::choice::{Choice, cut, scratch};
use super::choice_store::ChoiceStore;
use super::device::WgpuDevice;
use super::encode::Encoding;
use super::memory::Memory;
use super::open_options::{OpenOptions, features_of};
use super::pace::Pace;
use super::pipelines::{NotCompiled, Pipelines};
use super::replay::{Prepared, RecordingKey};
use super::room::Room;
use super::subgroup_test::{self, Verdict};
use super::timestamps::Timestamps;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::executor::{INDEXED_BYTES, check_span};
use crate::gpu::{
    AdapterReport, Clock, Command, DeviceLimits, Dispatch, Executor, Features, KernelDef, Lifetime, MemoryUse, Reading,
    Recording, Span, Timing,
};

/// Bulk uploads are submitted whenever this much is staged.
const UPLOAD_BYTES_PER_SUBMIT: usize = 64 << 20;

/// An open wgpu device.
pub struct WgpuExecutor {
    name: String,
    gpu: WgpuDevice,
    limits: DeviceLimits,
    features: Features,
    subgroup_verdict: Option<Verdict>,
    choice: Choice,
    pipelines: Pipelines,
    memory: Memory,
    /// Target duration of one submit.
    slice: Duration,
    staged_bytes: usize,
}

impl WgpuExecutor {
    /// Opens an adapter.
    pub fn open(report: &AdapterReport, options: &OpenOptions) -> Result<Self> {
        let name = format!("{} ({})", report.name, report.backend);
        let gpu = WgpuDevice::open(&name, report, options)?;
        let own = gpu.device.limits();
        let limits = DeviceLimits {
            max_binding_bytes: options.binding_limit().min(own.max_storage_buffer_binding_size).min(INDEXED_BYTES),
            max_buffer_bytes: own.max_buffer_size.min(INDEXED_BYTES),
            fewest_groups: report.fewest_groups(),
        };
        let features = features_of(gpu.device.features(), report.subgroup_sizes.1).and(options.features);
        let variants = features.to_string();
        let id = report.device_id.to_string();
        let identity = [&report.name, &report.vendor, &id, &report.driver, report.backend, &variants];
        Ok(Self {
            name,
            gpu,
            limits,
            features,
            subgroup_verdict: None,
            choice: Choice::new(report.is_software(), options.alternatives, ChoiceStore::of_adapter(&identity)),
            pipelines: Pipelines::new(options.checked),
            memory: Memory::of(options.pretended_memory().map_or_else(|| Room::of(report), Room::Own)),
            slice: options.slice,
            staged_bytes: 0,
        })
    }

    /// Simulates the loss of the device, as a driver reset would cause it: every later call returns
    /// [`crate::error::ErrorKind::DeviceLost`].
    #[cfg(any(test, feature = "testing"))]
    pub fn lose_device(&mut self) {
        self.gpu.lose();
    }

    /// Simulates a driver that drops the next submit and says that it has finished, as Metal does
    /// after its watchdog or a lack of memory has killed the work.
    #[cfg(any(test, feature = "testing"))]
    pub fn drop_next_submit(&mut self) {
        self.gpu.drop_next_submit();
    }

    /// Continues the count of submits from `count`, on the device and on the host.
    #[cfg(any(test, feature = "testing"))]
    pub fn count_submits_from(&mut self, count: u32) {
        self.gpu.count_submits_from(count);
    }

    /// The number of submits of recordings that are not known to have ended.
    #[cfg(any(test, feature = "testing"))]
    pub fn n_in_flight(&self) -> usize {
        self.gpu.n_in_flight()
    }

    /// The optional features whose kernel variants are in use. Subgroups are excluded after the
    /// device failed their test.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Why the device's subgroups are not used although it offers them; `None` if the test passed
    /// or was not needed.
    pub fn subgroup_failure(&self) -> Option<&str> {
        self.subgroup_verdict.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Tests the device's subgroups before the first kernel that uses them is compiled.
    fn test_subgroups_for(&mut self, recording: &Recording) -> Result<()> {
        let mut kernels = recording.dispatches().flat_map(|d| d.kernel.with_alternatives());
        if !self.features.subgroups || self.subgroup_verdict.is_some() || !kernels.any(|k| k.features().subgroups) {
            return Ok(());
        }
        let verdict = subgroup_test::run(self)?;
        self.settle_subgroups(verdict);
        Ok(())
    }

    fn settle_subgroups(&mut self, verdict: Verdict) {
        self.features.subgroups &= verdict.is_ok();
        self.features.wide_subgroups &= verdict.as_ref().is_ok_and(|&lanes| lanes >= Features::WIDE_LANES);
        self.subgroup_verdict = Some(verdict);
    }

    /// Treats the device as one that has failed the test of its subgroups. Only before its first
    /// run: what was compiled stays.
    #[cfg(any(test, feature = "testing"))]
    pub fn fail_subgroup_test(&mut self) {
        assert!(self.subgroup_verdict.is_none(), "the subgroups of this device were tested before");
        self.settle_subgroups(Err("failed on purpose".to_string()));
    }

    /// The number of recordings that reused what was prepared for an earlier one with the same key.
    pub fn n_replayed(&self) -> u64 {
        self.memory.replays.hits
    }

    /// The recording with the alternatives that this device runs, compiled. Times untested
    /// alternatives first, within the time budget.
    fn choose(&mut self, recording: &Recording) -> Result<Recording> {
        self.check(recording)?;
        self.test_subgroups_for(recording)?;
        for d in recording.dispatches() {
            if self.choice.wants(d, self.features) {
                match self.choice.has_time(Duration::ZERO) {
                    true => self.measure(d)?,
                    false => self.choice.settle(d, self.features),
                }
            }
        }
        self.choice.save();
        loop {
            let chosen = recording.with_dispatches(|d| self.choice.of(d, self.features));
            let Err(not) = self.compile(&chosen) else { return Ok(chosen) };
            self.do_without(not, recording)?;
        }
    }

    /// Excludes an alternative that the driver failed to compile. If a recorded kernel failed,
    /// returns the error.
    fn do_without(&mut self, not: NotCompiled, recorded: &Recording) -> Result<()> {
        let is_alternative = |k: &&KernelDef| !recorded.dispatches().any(|d| std::ptr::eq(d.kernel, *k));
        self.choice.refuse(not.kernel.filter(is_alternative).ok_or(not.error)?);
        Ok(())
    }

    fn compile(&mut self, recording: &Recording) -> std::result::Result<(), NotCompiled> {
        self.pipelines.prepare(&self.gpu.device, &self.gpu.faults, recording.dispatches(), self.features)
    }

    /// Times a dispatch and its alternatives and records the fastest, or the expected one if memory is
    /// short.
    fn measure(&mut self, d: &Dispatch) -> Result<()> {
        let start = Instant::now();
        let fastest = match self.fastest(d, start) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => None,
            found => found?,
        };
        self.choice.unmark();
        let chosen = fastest.unwrap_or_else(|| self.choice.of(d, self.features));
        self.choice.note(d, &chosen, start.elapsed());
        Ok(())
    }

    /// The fastest of a dispatch and its alternatives on scratch memory; `None` if that takes too
    /// much.
    fn fastest(&mut self, d: &Dispatch, start: Instant) -> Result<Option<Dispatch>> {
        let Some(spans) = scratch(d) else { return Ok(None) };
        // The work of a product follows from its parameters; that of attention stays unknown.
        let flops = d.work(&mut |_| Err(Error::new("nothing is read"))).map_or(0, |work| work.flops);
        let mut fastest: Option<(f64, Dispatch)> = None;
        for rival in self.choice.rivals(d, self.features) {
            let (part, share) = cut(&rival, flops);
            let alone = Recording::of(Dispatch { spans: spans.clone(), ..part });
            self.memory.check(&alone)?;
            self.choice.mark(d, &rival);
            if let Err(not) = self.compile(&alone) {
                self.do_without(not, &Recording::of(d.clone()))?;
                self.choice.unmark();
                continue;
            }
            self.time_chosen(&alone)?; // warm-up
            let seconds = self.time_chosen(&alone)?.iter().map(|t| t.seconds).sum::<f64>() / share;
            self.choice.unmark();
            if fastest.as_ref().is_none_or(|(best, _)| seconds < *best) {
                fastest = Some((seconds, rival));
            }
            if !self.choice.has_time(start.elapsed()) {
                break;
            }
        }
        Ok(fastest.map(|(_, fastest)| fastest))
    }

    /// Runs a compiled recording unchanged and returns the time of each command.
    fn time_chosen(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        let shape = RecordingKey::of(recording);
        let mut prepared = Prepared::new(&shape, recording, &self.pipelines, Pace::new(self.slice));
        self.memory.provide(&self.gpu, &mut prepared, &shape, recording)?;
        self.time(&prepared)
    }

    fn time(&mut self, prepared: &Prepared) -> Result<Vec<Timing>> {
        self.gpu.poll(None)?;
        let mut timestamps = Timestamps::new(&self.gpu)?;
        let mut timings = Vec::new();
        while timings.len() < prepared.commands.len() {
            let done = timings.len();
            // The first command runs alone, to find out whether the timestamps are real. Without
            // timestamps every command runs alone.
            let alone = timestamps.is_none() || timings.is_empty();
            let most = if alone { 1 } else { prepared.pace.commands().min(Timestamps::MAX_COMMANDS) };
            let part = done..prepared.commands.len().min(done + most);
            let encoding = Encoding { gpu: &self.gpu, prepared };
            let encoded = match &timestamps {
                Some(timestamps) => encoding.encode_timed(part.clone(), timestamps),
                None => encoding.encode(part.clone()),
            };
            let start = Instant::now();
            let ticket = self.gpu.submit_paced(encoded, part.len(), &prepared.pace)?;
            self.gpu.poll(Some(ticket))?;
            let host_seconds = start.elapsed().as_secs_f64();
            let device_seconds = timestamps.as_ref().map(|t| t.read(&self.gpu, part.len())).transpose()?.flatten();
            match device_seconds {
                Some(each) => timings.extend(each.into_iter().map(|seconds| Timing { seconds, clock: Clock::Device })),
                None => {
                    timestamps = None;
                    let seconds = host_seconds / part.len() as f64;
                    timings.extend(vec![Timing { seconds, clock: Clock::Host }; part.len()]);
                }
            }
        }
        self.staged_bytes = 0;
        Ok(timings)
    }

    /// A recording with kernels chosen and compiled, memory and parameters in place, ready for its
    /// first submit.
    fn prepare(&mut self, recording: &Recording) -> Result<Prepared> {
        self.gpu.faults.check()?;
        let shape = RecordingKey::of(recording);
        let mut prepared = match self.memory.replays.take(&shape) {
            Some(prepared) => prepared,
            None => {
                let chosen = self.choose(recording)?;
                Prepared::new(&shape, &chosen, &self.pipelines, Pace::new(self.slice))
            }
        };
        self.memory.provide(&self.gpu, &mut prepared, &shape, recording)?;
        Ok(prepared)
    }

    fn write_bytes(&mut self, span: &Span, bytes: &[u8]) -> Result<()> {
        assert_eq!(span.buffer.lifetime(), Lifetime::Persistent, "only persistent buffers are written by the host");
        assert!(bytes.len() <= span.len * 4, "write of {} bytes to {} elements", bytes.len(), span.len);
        self.gpu.faults.check()?;
        check_span(span, &self.limits)?;
        let buffer = self.memory.storage(&self.gpu, &span.buffer)?;
        for (i, chunk) in bytes.chunks(UPLOAD_BYTES_PER_SUBMIT).enumerate() {
            let offset = (span.offset * 4 + i * UPLOAD_BYTES_PER_SUBMIT) as u64;
            self.gpu.queue.write_buffer(&buffer, offset, chunk);
            self.staged_bytes += chunk.len();
            if self.staged_bytes >= UPLOAD_BYTES_PER_SUBMIT {
                self.staged_bytes = 0;
                let ticket = self.gpu.submit(self.gpu.encoder())?;
                self.gpu.poll(Some(ticket))?;
            }
        }
        self.gpu.faults.check()
    }

    fn start_read(&mut self, span: &Span) -> Result<Reading<u8>> {
        assert_eq!(span.buffer.lifetime(), Lifetime::Persistent, "only persistent buffers are read by the host");
        self.gpu.faults.check()?;
        check_span(span, &self.limits)?;
        let source = self.memory.storage(&self.gpu, &span.buffer)?;
        self.gpu.start_read(&source, span.offset as u64 * 4, span.len as u64 * 4, span.buffer.label())
    }
}

impl Executor for WgpuExecutor {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn kernel_of(&self, dispatch: &Dispatch) -> &'static KernelDef {
        self.choice.of(dispatch, self.features).kernel
    }

    fn check(&self, recording: &Recording) -> Result<()> {
        let mut uses = recording.commands().iter().flat_map(Command::uses);
        uses.try_for_each(|(span, _)| check_span(span, &self.limits))?;
        self.memory.check(recording)
    }

    fn run(&mut self, recording: &Recording) -> Result<()> {
        let prepared = self.prepare(recording)?;
        let (all, mut done) = (prepared.commands.len(), 0);
        while done < all {
            self.gpu.make_room(&prepared.pace)?;
            let part = done..all.min(done + prepared.pace.commands());
            done = part.end;
            let encoded = Encoding { gpu: &self.gpu, prepared: &prepared }.encode(part.clone());
            self.gpu.submit_paced(encoded, part.len(), &prepared.pace)?;
        }
        self.staged_bytes = 0;
        self.memory.replays.keep(prepared);
        Ok(())
    }

    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        let prepared = self.prepare(recording)?;
        let timings = self.time(&prepared)?;
        self.memory.replays.keep(prepared);
        Ok(timings)
    }

    fn wait(&mut self) -> Result<()> {
        self.gpu.poll(None)
    }

    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        self.write_bytes(span, bytemuck::cast_slice(data))
    }

    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        let narrow: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        self.write_real(span, &narrow)
    }

    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        self.write_bytes(span, bytemuck::cast_slice(data))
    }

    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.start_read(span)?.wait()?))
    }

    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.start_read_f64(span)?.wait()
    }

    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.start_read_words(span)?.wait()
    }

    fn start_read_f64(&mut self, span: &Span) -> Result<Reading<f64>> {
        let wide =
            |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| f64::from(bytemuck::pod_read_unaligned::<f32>(b))).collect();
        Ok(self.start_read(span)?.map(wide))
    }

    fn start_read_words(&mut self, span: &Span) -> Result<Reading<u32>> {
        Ok(self.start_read(span)?.map(|bytes: Vec<u8>| bytemuck::pod_collect_to_vec(&bytes)))
    }

    fn memory(&self) -> MemoryUse {
        self.memory.usage()
    }

    fn reset_peak(&mut self) {
        self.memory.reset_peak();
    }
}
