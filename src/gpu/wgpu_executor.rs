//! Runs recordings on a GPU through wgpu: bind groups, bounded submits, read-back.
//!
//! Errors never panic: uncaptured errors and device loss are collected by callbacks (`faults.rs`) and returned by the call
//! that met them. Compiled kernels are in `pipelines.rs`, device memory in `pool.rs`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::executor::check_span;
use super::faults::{Faults, catch_quietly};
use super::open_options::{OpenOptions, features_of};
use super::pace::Pace;
use super::pipelines::{Pipeline, Pipelines};
use super::pool::{Pool, create};
use super::subgroup_test::{self, Verdict};
use super::{
    AdapterReport, Command, DeviceLimits, Dispatch, Executor, Features, Lifetime, MemoryUse, Plan, Recording, Span,
};
use crate::error::{Error, Result};

/// Parameter blocks lie this many bytes apart in the uniform buffer (WebGPU's uniform offset alignment).
const PARAM_STRIDE: usize = 256;
/// Submits in flight before the next waits.
const SUBMITS_IN_FLIGHT: usize = 3;
/// Bulk uploads are submitted whenever this much is staged.
const UPLOAD_BYTES_PER_SUBMIT: usize = 64 << 20;

/// An open wgpu device.
pub struct WgpuExecutor {
    name: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    limits: DeviceLimits,
    features: Features,
    subgroup_verdict: Option<Verdict>,
    patience: Option<Duration>,
    pipelines: Pipelines,
    pool: Pool,
    pace: Pace,
    params: Option<wgpu::Buffer>,
    staged_bytes: usize,
    transient_peak_bytes: u64,
}

impl WgpuExecutor {
    /// Opens an adapter.
    pub fn open(report: &AdapterReport, options: &OpenOptions) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("longreach"),
            required_features: options.required_features(report.adapter.features()),
            required_limits: options.limits.of(&report.limits),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let name = format!("{} ({})", report.name, report.backend);
        let opened = pollster::block_on(report.adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| {
            Error::new(format!("cannot open {name}: {e}. Update the graphics driver, or use --device cpu"))
        })?;
        let faults = Faults::default();
        let (on_error, on_lost) = (faults.clone(), faults.clone());
        device.on_uncaptured_error(std::sync::Arc::new(move |e: wgpu::Error| on_error.record(&e)));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed || !message.is_empty() {
                on_lost.set_lost(format!("{reason:?}: {message}"));
            }
        });
        let own = device.limits();
        let limits = DeviceLimits {
            max_binding_bytes: options.max_binding_bytes.unwrap_or(u64::MAX).min(own.max_storage_buffer_binding_size),
            max_buffer_bytes: own.max_buffer_size,
        };
        let features = features_of(device.features());
        Ok(Self {
            name,
            device,
            queue,
            faults,
            limits,
            features,
            subgroup_verdict: None,
            patience: options.patience,
            pipelines: Pipelines::new(options.checked),
            pool: Pool::default(),
            pace: Pace::default(),
            params: None,
            staged_bytes: 0,
            transient_peak_bytes: 0,
        })
    }

    /// Takes the device away, as a driver reset would: every later call returns
    /// [`crate::error::ErrorKind::DeviceLost`].
    pub fn lose_device(&mut self) {
        self.faults.set_lost("Destroyed: taken away on purpose".to_string());
        self.device.destroy();
    }

    /// The kernels' optional forms that are in use. Subgroups are left out once the device has failed their test.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Why the device's subgroups are not used although it offers them; none while the test was passed or not needed.
    pub fn subgroup_failure(&self) -> Option<&str> {
        self.subgroup_verdict.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Tests the device's subgroups before the first kernel that uses them is compiled.
    fn test_subgroups_for(&mut self, recording: &Recording) -> Result<()> {
        let uses_them = |c: &Command| matches!(c, Command::Dispatch(d) if d.kernel.features().subgroups);
        if !self.features.subgroups || self.subgroup_verdict.is_some() || !recording.commands().iter().any(uses_them) {
            return Ok(());
        }
        let verdict = subgroup_test::run(self)?;
        self.settle_subgroups(verdict);
        Ok(())
    }

    fn settle_subgroups(&mut self, verdict: Verdict) {
        self.features.subgroups &= verdict.is_ok();
        self.subgroup_verdict = Some(verdict);
    }

    /// Treats the device as one that has failed the test of its subgroups. Only before its first run: what was compiled stays.
    pub fn fail_subgroup_test(&mut self) {
        assert!(self.subgroup_verdict.is_none(), "the subgroups of this device were tested before");
        self.settle_subgroups(Err("failed on purpose".to_string()));
    }

    fn upload_params(&mut self, recording: &Recording) -> Result<()> {
        let dispatches = recording.commands().iter().filter_map(|c| match c {
            Command::Dispatch(d) => Some(d),
            _ => None,
        });
        let mut bytes = Vec::new();
        for d in dispatches {
            let start = bytes.len();
            bytes.extend_from_slice(&d.params);
            bytes.resize(start + PARAM_STRIDE, 0);
        }
        let need = bytes.len().max(PARAM_STRIDE) as u64;
        if self.params.as_ref().is_none_or(|b| b.size() < need) {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
            self.params = Some(create(&self.device, &self.faults, "parameters", need.next_power_of_two(), usage)?);
        }
        if let Some(buffer) = &self.params {
            self.queue.write_buffer(buffer, 0, &bytes);
        }
        Ok(())
    }

    fn bind(&self, d: &Dispatch, buffers: &HashMap<u64, wgpu::Buffer>, pipeline: &Pipeline) -> wgpu::BindGroup {
        let size = |n: usize| std::num::NonZeroU64::new(n as u64);
        let params = self.params.as_ref().expect("parameters are uploaded before binding");
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: params,
                offset: 0,
                size: size(d.params.len()),
            }),
        }];
        for (i, span) in d.spans.iter().enumerate() {
            entries.push(wgpu::BindGroupEntry {
                binding: i as u32 + 1,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &buffers[&span.buffer.id()],
                    offset: span.offset as u64 * 4,
                    size: size(span.len * 4),
                }),
            });
        }
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(d.kernel.label),
            layout: &pipeline.layout,
            entries: &entries,
        })
    }

    fn encode(
        &mut self,
        commands: &[Command],
        first_dispatch: usize,
        buffers: &HashMap<u64, wgpu::Buffer>,
    ) -> wgpu::CommandBuffer {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        let mut index = first_dispatch;
        let mut rest = commands;
        while let Some(command) = rest.first() {
            match command {
                Command::Copy { from, to } => {
                    let (a, b) = (&buffers[&from.buffer.id()], &buffers[&to.buffer.id()]);
                    encoder.copy_buffer_to_buffer(
                        a,
                        from.offset as u64 * 4,
                        b,
                        to.offset as u64 * 4,
                        from.len as u64 * 4,
                    );
                    rest = &rest[1..];
                }
                Command::Clear(span) => {
                    let b = &buffers[&span.buffer.id()];
                    encoder.clear_buffer(b, span.offset as u64 * 4, Some(span.len as u64 * 4));
                    rest = &rest[1..];
                }
                Command::Dispatch(_) => {
                    let n = rest.iter().take_while(|c| matches!(c, Command::Dispatch(_))).count();
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    for command in &rest[..n] {
                        let Command::Dispatch(d) = command else { unreachable!("counted as dispatches") };
                        let pipeline = self.pipelines.get(d);
                        pass.set_pipeline(&pipeline.pipeline);
                        pass.set_bind_group(0, &self.bind(d, buffers, pipeline), &[(index * PARAM_STRIDE) as u32]);
                        pass.dispatch_workgroups(d.groups[0], d.groups[1], d.groups[2]);
                        index += 1;
                    }
                    rest = &rest[n..];
                }
            }
        }
        encoder.finish()
    }

    /// Waits for a submission, or for everything. On a lost device wgpu's poll panics: it is not asked once the loss is
    /// known, and a panic is caught.
    fn poll(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        self.faults.check()?;
        let wait = wgpu::PollType::Wait { submission_index, timeout: self.patience };
        let polled = catch_quietly(|| self.device.poll(wait));
        match polled {
            // Unless the callback said more.
            Err(_) => self.faults.set_lost("it stopped answering".to_string()),
            Ok(Err(wgpu::PollError::Timeout)) => {
                let seconds = self.patience.map_or(0.0, |p| p.as_secs_f64());
                self.faults.set_lost(format!("it did not finish within {seconds} s, so a kernel hangs"));
            }
            Ok(_) => {}
        }
        self.faults.check()?;
        match polled {
            Ok(Err(e)) => Err(Error::new(format!("waiting for the device failed: {e}"))),
            _ => Ok(()),
        }
    }

    fn buffers_of(&mut self, recording: &Recording, plan: &Plan) -> Result<HashMap<u64, wgpu::Buffer>> {
        let slots = self.pool.slots(&self.device, &self.faults, plan)?;
        let mut buffers = HashMap::new();
        for command in recording.commands() {
            for (span, _) in command.uses() {
                let b = &span.buffer;
                if let Entry::Vacant(entry) = buffers.entry(b.id()) {
                    let made = match b.lifetime() {
                        Lifetime::Persistent => self.pool.persistent(&self.device, &self.faults, b)?,
                        Lifetime::Transient => slots[plan.slot(b.id())].clone(),
                    };
                    entry.insert(made);
                }
            }
        }
        Ok(buffers)
    }

    fn write_bytes(&mut self, span: &Span, bytes: &[u8]) -> Result<()> {
        assert_eq!(span.buffer.lifetime(), Lifetime::Persistent, "only persistent buffers are written by the host");
        assert!(bytes.len() <= span.len * 4, "write of {} bytes to {} elements", bytes.len(), span.len);
        self.faults.check()?;
        check_span(span, &self.limits)?;
        let buffer = self.pool.persistent(&self.device, &self.faults, &span.buffer)?;
        for (i, chunk) in bytes.chunks(UPLOAD_BYTES_PER_SUBMIT).enumerate() {
            let offset = (span.offset * 4 + i * UPLOAD_BYTES_PER_SUBMIT) as u64;
            self.queue.write_buffer(&buffer, offset, chunk);
            self.staged_bytes += chunk.len();
            if self.staged_bytes >= UPLOAD_BYTES_PER_SUBMIT {
                self.staged_bytes = 0;
                let index = self.queue.submit([]);
                self.poll(Some(index))?;
            }
        }
        self.faults.check()
    }

    fn read_bytes(&mut self, span: &Span) -> Result<Vec<u8>> {
        assert_eq!(span.buffer.lifetime(), Lifetime::Persistent, "only persistent buffers are read by the host");
        self.faults.check()?;
        check_span(span, &self.limits)?;
        let source = self.pool.persistent(&self.device, &self.faults, &span.buffer)?;
        let size = span.len as u64 * 4;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = create(&self.device, &self.faults, "reading back", size, usage)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        encoder.copy_buffer_to_buffer(&source, span.offset as u64 * 4, &staging, 0, size);
        let index = self.queue.submit([encoder.finish()]);
        let (send, receive) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |r| {
            let _ = send.send(r); // the receiver is gone only when waiting failed, which is reported
        });
        self.poll(Some(index))?;
        let mapped = receive.try_recv().map_err(|_| Error::new("the device did not answer a read-back"))?;
        mapped.map_err(|e| Error::new(format!("mapping {} for reading failed: {e}", span.buffer.label())))?;
        let view =
            staging.get_mapped_range(..).map_err(|e| Error::new(format!("reading a mapped buffer failed: {e}")))?;
        Ok(view.to_vec())
    }
}

impl Executor for WgpuExecutor {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn check(&self, recording: &Recording) -> Result<()> {
        let mut uses = recording.commands().iter().flat_map(Command::uses);
        uses.try_for_each(|(span, _)| check_span(span, &self.limits))
    }

    fn run(&mut self, recording: &Recording) -> Result<()> {
        self.faults.check()?;
        self.check(recording)?;
        self.test_subgroups_for(recording)?;
        self.pool.drop_dead();
        let plan = Plan::new(recording);
        let buffers = self.buffers_of(recording, &plan)?;
        for command in recording.commands() {
            if let Command::Dispatch(d) = command {
                self.pipelines.prepare(&self.device, &self.faults, d, self.features)?;
            }
        }
        self.upload_params(recording)?;
        self.pace.restart();
        let (mut first_dispatch, mut rest, mut in_flight) = (0, recording.commands(), VecDeque::new());
        while !rest.is_empty() {
            let n = self.pace.commands().min(rest.len());
            let encoded = self.encode(&rest[..n], first_dispatch, &buffers);
            first_dispatch += rest[..n].iter().filter(|c| matches!(c, Command::Dispatch(_))).count();
            rest = &rest[n..];
            in_flight.push_back((n, self.queue.submit([encoded])));
            self.faults.check()?;
            if in_flight.len() > SUBMITS_IN_FLIGHT
                && let Some((n, oldest)) = in_flight.pop_front()
            {
                self.poll(Some(oldest))?;
                self.pace.ended(n, Instant::now());
            }
        }
        self.staged_bytes = 0;
        self.transient_peak_bytes = self.transient_peak_bytes.max(plan.peak_bytes());
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        self.poll(None)
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
        Ok(bytemuck::pod_collect_to_vec(&self.read_bytes(span)?))
    }

    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        Ok(self.read_real(span)?.into_iter().map(f64::from).collect())
    }

    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read_bytes(span)?))
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { persistent_bytes: self.pool.persistent_bytes(), transient_peak_bytes: self.transient_peak_bytes }
    }

    fn reset_peak(&mut self) {
        self.transient_peak_bytes = 0;
    }
}
