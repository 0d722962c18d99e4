//! An open wgpu device: its queue, the faults it reports, and the calls that wait for it.
//!
//! `executor.rs` runs work on it; `pool.rs` manages its memory.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::beat::Beat;
use super::faults::{Faults, catch_quietly};
use super::flight::Flight;
use super::pace::Pace;
use super::pool::create;
use crate::error::{Context, Error, Result};
use crate::gpu::{AdapterReport, OpenOptions, Reading};

/// Maximum bytes of a buffer through which the host reads.
const MOST_STAGED_BYTES: u64 = 64 << 20;

/// A submit to wait for.
pub(super) type Ticket = super::flight::Ticket<wgpu::SubmissionIndex>;

/// A device with its queue and faults. A clone is another handle to the same device.
#[derive(Clone)]
pub(super) struct WgpuDevice {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) faults: Faults,
    beat: Arc<Beat>,
    flight: Arc<Mutex<Flight<wgpu::SubmissionIndex>>>,
    patience: Option<Duration>,
}

impl WgpuDevice {
    /// Opens an adapter. Messages call it `name`.
    pub(super) fn open(name: &str, report: &AdapterReport, options: &OpenOptions) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("longreach"),
            required_features: options.required_features(report.offered),
            required_limits: options.limits.of(&report.limits),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let opened = pollster::block_on(report.adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| {
            Error::new(format!("cannot open {name}: {e}. Update the graphics driver, or use `device` cpu"))
        })?;
        let faults = Faults::default();
        let (on_error, on_lost) = (faults.clone(), faults.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| on_error.record(&e)));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed || !message.is_empty() {
                on_lost.set_lost(format!("{reason:?}: {message}"));
            }
        });
        let beat = Arc::new(Beat::new(&device, &faults).with_context(|| format!("opening {name}"))?);
        let flight = Arc::new(Mutex::new(Flight::new()));
        Ok(Self { device, queue, faults, beat, flight, patience: options.patience })
    }

    /// Takes the device away, as a driver reset would.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn lose(&self) {
        self.faults.set_lost("Destroyed: taken away on purpose".to_string());
        self.device.destroy();
    }

    /// Has the driver drop the next submit and report it as finished, as Metal may.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn drop_next_submit(&self) {
        self.beat.drop_next();
    }

    /// Continues counting submits from `count`.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn count_submits_from(&self, count: u32) {
        self.beat.continue_from(count, &self.queue);
    }

    /// A new command encoder.
    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    fn flight(&self) -> MutexGuard<'_, Flight<wgpu::SubmissionIndex>> {
        self.flight.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The number of submits of recordings in flight.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn n_in_flight(&self) -> usize {
        self.flight().len()
    }

    /// Waits until few enough submits are in flight for another one of this pace.
    pub(super) fn make_room(&self, pace: &Pace) -> Result<()> {
        loop {
            let most = pace.in_flight();
            let oldest = self.flight().oldest_beyond(most);
            match oldest {
                Some(oldest) => self.poll(Some(oldest))?,
                None => return Ok(()),
            }
        }
    }

    /// Submits what was encoded, with the beat behind it.
    pub(super) fn submit(&self, mut encoder: wgpu::CommandEncoder) -> Result<Ticket> {
        self.beat.record(&mut encoder);
        Ok(self.submit_beaten(encoder)?.0)
    }

    /// Submits `n` commands of a recording, and measures them for its pace.
    pub(super) fn submit_paced(&self, encoder: wgpu::CommandEncoder, n: usize, pace: &Pace) -> Result<Ticket> {
        let at = Instant::now();
        let ticket = self.submit(encoder)?;
        self.flight().add(ticket.clone(), n, pace, at);
        Ok(ticket)
    }

    /// Submits what was encoded with one beat in it. Returns also what the device has counted after
    /// it. A submit that wgpu refuses is an error and does not count.
    fn submit_beaten(&self, encoder: wgpu::CommandEncoder) -> Result<(Ticket, u32)> {
        let commands = self.kept(encoder.finish());
        self.faults.check()?; // so that a fault found below is that of the submit
        let index = self.queue.submit(commands);
        self.faults.check()?;
        Ok((self.flight().ticket(index), self.beat.submitted()))
    }

    /// What of a command buffer reaches the device: all, unless a test drops it.
    fn kept(&self, commands: wgpu::CommandBuffer) -> Option<wgpu::CommandBuffer> {
        #[cfg(any(test, feature = "testing"))]
        if self.beat.takes_drop() {
            return None;
        }
        Some(commands)
    }

    /// Waits for a submit, or for all. wgpu's poll panics on a lost device: it is not called
    /// once the loss is known, and a panic is caught.
    pub(super) fn poll(&self, ticket: Option<Ticket>) -> Result<()> {
        self.faults.check()?;
        let (last, submission_index) = ticket.map_or((u64::MAX, None), |t| (t.number, Some(t.index)));
        let wait = wgpu::PollType::Wait { submission_index, timeout: self.patience };
        let asked = Instant::now();
        let polled = catch_quietly(|| self.device.poll(wait));
        match polled {
            // Unless the callback already recorded a reason.
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
            _ => {
                self.flight().ended(last, asked, Instant::now());
                Ok(())
            }
        }
    }

    /// Starts a read of `size` bytes of a buffer from `offset` on. `label` names it in messages. A long
    /// read goes piece by piece and is over when this returns.
    pub(super) fn start_read(&self, source: &wgpu::Buffer, offset: u64, size: u64, label: &str) -> Result<Reading<u8>> {
        if size <= MOST_STAGED_BYTES {
            return self.start_piece(source, offset, size, label);
        }
        let mut bytes = Vec::with_capacity(size as usize);
        for at in (0..size).step_by(MOST_STAGED_BYTES as usize) {
            let n = MOST_STAGED_BYTES.min(size - at);
            bytes.extend(self.start_piece(source, offset + at, n, label)?.wait()?);
        }
        Ok(Reading::ready(bytes))
    }

    fn start_piece(&self, source: &wgpu::Buffer, offset: u64, size: u64, label: &str) -> Result<Reading<u8>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = create(&self.device, &self.faults, "reading back", size + Beat::BYTES, usage)?;
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(source, offset, &staging, 0, size);
        self.beat.record(&mut encoder);
        self.beat.copy(&mut encoder, &staging, size);
        let (ticket, submitted) = self.submit_beaten(encoder)?;
        let (send, receive) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |r| {
            let _ = send.send((r, Instant::now())); // the receiver is dropped only if waiting failed, and that error is returned
        });
        self.faults.check()?;
        let (device, label) = (self.clone(), label.to_string());
        Ok(Reading::started(move || {
            device.poll(Some(ticket))?;
            let (mapped, at) = receive.try_recv().map_err(|_| Error::new("the device did not answer a read-back"))?;
            mapped.map_err(|e| Error::new(format!("mapping {label} for reading failed: {e}")))?;
            let view =
                staging.get_mapped_range(..).map_err(|e| Error::new(format!("reading a mapped buffer failed: {e}")))?;
            let (data, beat) = view.split_at(size as usize);
            Beat::compare(bytemuck::pod_read_unaligned(beat), submitted, &device.faults)?;
            Ok((data.to_vec(), at))
        }))
    }
}
