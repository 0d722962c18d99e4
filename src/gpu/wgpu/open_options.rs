//! Options for opening an adapter.

use std::time::Duration;

use crate::gpu::Features;

/// The limits to open a device with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSet {
    /// The adapter's limits, with the optional features that Longreach uses.
    #[default]
    Adapter,
    /// WebGPU's default limits and no optional feature: the least that any device offers.
    WebGpu,
}

impl LimitSet {
    /// The limits to request of an adapter that offers `offered`.
    pub(super) fn of(self, offered: &wgpu::Limits) -> wgpu::Limits {
        match self {
            LimitSet::Adapter => offered.clone(),
            LimitSet::WebGpu => wgpu::Limits::default().or_worse_values_from(offered),
        }
    }
}

/// The kernels that a device may run in place of recorded ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternatives {
    /// None: it runs what is recorded.
    Never,
    /// The alternative that is expected to be the fastest on this type of device.
    Expected,
    /// The measured fastest, saved for later runs. Software adapters use the expected one, since
    /// they take longer to compile a kernel than to run it.
    Best,
    /// The measured fastest, measured now, on every adapter.
    Measured,
}

/// How to open a device.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Limits to request.
    pub limits: LimitSet,
    /// Keep naga's bounds checks and loop bounding in the shaders.
    pub checked: bool,
    /// Pretend that bindings may hold at most this many bytes, to test slicing.
    #[cfg(any(test, feature = "testing"))]
    pub max_binding_bytes: Option<u64>,
    /// Pretend that the device has so many bytes of its own, to test refusals.
    #[cfg(any(test, feature = "testing"))]
    pub memory_bytes: Option<u64>,
    /// Optional features that kernel variants may use if the adapter has them. [`LimitSet::WebGpu`]
    /// means none.
    pub features: Features,
    /// The alternatives the device may run in place of recorded kernels.
    pub alternatives: Alternatives,
    /// Target duration of one submit, so that other programs and the window get GPU time in
    /// between.
    pub slice: Duration,
    /// Maximum duration of a submit before the device counts as lost; `None` means no limit. After
    /// such a loss drop the executor with [`std::mem::forget`]: a driver waits for hanging work.
    /// (llvmpipe always waits to the end, and ends loops after 65,536 iterations.)
    pub patience: Option<Duration>,
}

impl Default for OpenOptions {
    /// All that the adapter has.
    fn default() -> Self {
        Self {
            limits: LimitSet::Adapter,
            checked: false,
            #[cfg(any(test, feature = "testing"))]
            max_binding_bytes: None,
            #[cfg(any(test, feature = "testing"))]
            memory_bytes: None,
            features: Features::ALL,
            alternatives: Alternatives::Best,
            slice: Duration::from_millis(50),
            patience: None,
        }
    }
}

impl OpenOptions {
    /// The most bytes that a binding may hold, however many the device allows.
    pub(super) fn binding_limit(&self) -> u64 {
        #[cfg(any(test, feature = "testing"))]
        if let Some(bytes) = self.max_binding_bytes {
            return bytes;
        }
        u64::MAX
    }

    /// The bytes of memory that a test has the device pretend to have.
    pub(super) fn pretended_memory(&self) -> Option<u64> {
        #[cfg(any(test, feature = "testing"))]
        if self.memory_bytes.is_some() {
            return self.memory_bytes;
        }
        None
    }

    /// The features to request out of those that the adapter offers.
    pub(super) fn required_features(&self, offered: wgpu::Features) -> wgpu::Features {
        if self.limits == LimitSet::WebGpu {
            return wgpu::Features::empty();
        }
        // If a driver cannot read a format as a storage texture, the kernel fails to compile and
        // the device runs without it.
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES;
        wanted.set(wgpu::Features::SUBGROUP, self.features.subgroups);
        wanted.set(wgpu::Features::SHADER_F16, self.features.f16);
        offered & wanted
    }
}

/// The device features for which kernels have variants. Its subgroups have at most `most_lanes`
/// lanes, 0 if unknown.
pub(super) fn features_of(device: wgpu::Features, most_lanes: u32) -> Features {
    let subgroups = device.contains(wgpu::Features::SUBGROUP);
    let wide_subgroups = subgroups && (most_lanes == 0 || most_lanes >= Features::WIDE_LANES);
    let f16 = device.contains(wgpu::Features::SHADER_F16);
    Features { subgroups, wide_subgroups, f16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_subgroups_run_no_kernel_that_hands_round_eight_lanes() {
        let device = wgpu::Features::SUBGROUP;
        assert!(features_of(device, 8).wide_subgroups && features_of(device, 0).wide_subgroups);
        let short = features_of(device, 4);
        assert!(short.subgroups && !short.wide_subgroups);
        let kernels = crate::kernels::all().into_iter().chain(crate::attention::kernels());
        let alternatives: Vec<_> = kernels.flat_map(|(kernel, _)| kernel.with_alternatives()).collect();
        let runs = |features: Features| {
            alternatives.iter().filter(|k| k.label.contains("broadcast") && k.runs_with(features)).count()
        };
        assert!(runs(features_of(device, 8)) > 5);
        assert_eq!(runs(short), 0);
        assert!(alternatives.iter().any(|k| k.features().subgroups && k.runs_with(short)));
    }
}
