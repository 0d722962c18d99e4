//! What to ask of an adapter when it is opened.

use std::time::Duration;

use crate::gpu::Features;

/// Which limits to open a device with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSet {
    /// All that the adapter has, with the optional features that Longreach uses.
    #[default]
    Adapter,
    /// WebGPU's defaults and no optional feature: the least a device may offer.
    WebGpu,
}

impl LimitSet {
    /// The limits to ask for of an adapter with these.
    pub(super) fn of(self, offered: &wgpu::Limits) -> wgpu::Limits {
        match self {
            LimitSet::Adapter => offered.clone(),
            LimitSet::WebGpu => wgpu::Limits::default().or_worse_values_from(offered),
        }
    }
}

/// What a device may run in place of a recorded kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternatives {
    /// Nothing: what is recorded runs.
    Never,
    /// The alternative that is expected to be the fastest on such devices.
    Expected,
    /// The one that is found to be the fastest, kept from one run to the next; on software adapters, which take longer to compile a
    /// kernel than to run it, the expected one.
    Best,
    /// The one that is found to be the fastest now, on every adapter.
    Measured,
}

/// How to open a device.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Limits to ask for.
    pub limits: LimitSet,
    /// Keep naga's bounds checks and loop bounding in the shaders.
    pub checked: bool,
    /// Pretend that bindings may hold at most this many bytes, to test slicing.
    #[cfg(any(test, feature = "testing"))]
    pub max_binding_bytes: Option<u64>,
    /// Which optional variants of kernels may be used where the adapter has what they need. [`LimitSet::WebGpu`] means none.
    pub features: Features,
    /// Which alternatives the device may run in place of recorded kernels.
    pub alternatives: Alternatives,
    /// What one submit should take, so that other programs' work and the window's come between.
    pub slice: Duration,
    /// How long a submit may take before the device counts as lost; for ever where there is none. Then drop the executor
    /// with [`std::mem::forget`]: a driver waits for what hangs. (llvmpipe waits to the end whatever it is asked, and ends loops
    /// after 65,536 turns.)
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

    /// What to ask for of what the adapter offers.
    pub(super) fn required_features(&self, offered: wgpu::Features) -> wgpu::Features {
        if self.limits == LimitSet::WebGpu {
            return wgpu::Features::empty();
        }
        // What a driver cannot read as a storage texture makes its kernel fail to compile, so that the device does without it.
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES;
        wanted.set(wgpu::Features::SUBGROUP, self.features.subgroups);
        wanted.set(wgpu::Features::SHADER_F16, self.features.f16);
        offered & wanted
    }
}

/// Those of a device's features for which kernels have variants; its subgroups have at most `most_lanes`, 0 where nobody knows.
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
