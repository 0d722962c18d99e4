//! A device that stops between recordings when asked to.

use super::{
    Activations, DeviceLimits, Dispatch, Executor, Features, KernelDef, MemoryUse, Reading, Recording, Span, Timing,
    WordFill,
};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::file_bytes::FileBytes;

/// Another device, whose runs fail with [`ErrorKind::Interrupted`] once a stop is asked for. What ran
/// before stays queued. So work of many recordings can be stopped without a check of its own.
pub struct Breakable<'a> {
    device: &'a mut dyn Executor,
    is_stopped: &'a mut dyn FnMut() -> bool,
}

impl<'a> Breakable<'a> {
    /// `is_stopped` is asked before each recording, and may block.
    pub fn new(device: &'a mut dyn Executor, is_stopped: &'a mut dyn FnMut() -> bool) -> Self {
        Self { device, is_stopped }
    }

    fn go_on(&mut self) -> Result<()> {
        match (self.is_stopped)() {
            true => Err(Error::of_kind(ErrorKind::Interrupted, "stopped")),
            false => Ok(()),
        }
    }
}

impl Executor for Breakable<'_> {
    fn name(&self) -> String {
        self.device.name()
    }
    fn runs_references(&self) -> bool {
        self.device.runs_references()
    }
    fn features(&self) -> Features {
        self.device.features()
    }
    fn activations(&self) -> Activations {
        self.device.activations()
    }
    fn set_activations(&mut self, activations: Activations) -> Result<()> {
        self.device.set_activations(activations)
    }
    fn limits(&self) -> DeviceLimits {
        self.device.limits()
    }
    fn kernel_of(&self, dispatch: &Dispatch) -> &'static KernelDef {
        self.device.kernel_of(dispatch)
    }
    fn check(&self, recording: &Recording) -> Result<()> {
        self.device.check(recording)
    }
    fn run(&mut self, recording: &Recording) -> Result<()> {
        self.go_on()?;
        self.device.run(recording)
    }
    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        self.go_on()?;
        self.device.run_timed(recording)
    }
    fn wait(&mut self) -> Result<()> {
        self.device.wait()
    }
    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        self.device.write_real(span, data)
    }
    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        self.device.write_f64(span, data)
    }
    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        self.device.write_words(span, data)
    }
    fn fill_words(&mut self, span: &Span, unit: usize, fill: &WordFill<'_>) -> Result<()> {
        self.device.fill_words(span, unit, fill)
    }
    fn write_mapped(&mut self, span: &Span, bytes: &FileBytes) -> Result<()> {
        self.device.write_mapped(span, bytes)
    }
    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        self.device.read_real(span)
    }
    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.device.read_f64(span)
    }
    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.device.read_words(span)
    }
    fn start_read_f64(&mut self, span: &Span) -> Result<Reading<f64>> {
        self.device.start_read_f64(span)
    }
    fn start_read_words(&mut self, span: &Span) -> Result<Reading<u32>> {
        self.device.start_read_words(span)
    }
    fn memory(&self) -> MemoryUse {
        self.device.memory()
    }
    fn reset_peak(&mut self) {
        self.device.reset_peak();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Buffer, CpuExecutor, Kind};

    #[test]
    fn runs_end_when_asked_and_the_device_stays() {
        let device = &mut CpuExecutor::<f32>::new();
        let span = Buffer::persistent("x", Kind::Real, 64).span();
        let mut cleared = Recording::new();
        cleared.clear(&span);
        device.write_real(&span, &[1.0; 64]).unwrap();
        let mut asked = 0;
        let mut is_stopped = || {
            asked += 1;
            asked > 2
        };
        let breakable = &mut Breakable::new(device, &mut is_stopped);
        breakable.run(&cleared).unwrap();
        breakable.run_timed(&cleared).unwrap();
        breakable.write_real(&span, &[2.0; 64]).unwrap();
        for stopped in [breakable.run(&cleared), breakable.run_timed(&cleared).map(|_| ())] {
            assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
        }
        assert_eq!(breakable.read_real(&span).unwrap(), [2.0; 64], "it did not run");
        device.run(&cleared).unwrap();
        assert_eq!(device.read_real(&span).unwrap(), [0.0; 64]);
    }
}
