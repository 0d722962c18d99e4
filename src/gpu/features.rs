//! Optional device features for which kernels have a variant besides the portable one.
//!
//! A kernel's [`super::Source`] names the parts that have a variant; `shader/link.rs` picks one by
//! the device's [`Features`].

/// One optional feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Subgroup operations: the lanes of a subgroup add and exchange values without memory.
    Subgroups,
    /// Subgroups of at least [`Features::WIDE_LANES`] lanes.
    WideSubgroups,
    /// `f16` as a WGSL type, also in buffers.
    F16,
}

/// A set of features. It displays as the name of the variant it selects: `portable`, `subgroups`,
/// `f16` or `subgroups + f16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features {
    /// [`Feature::Subgroups`].
    pub subgroups: bool,
    /// [`Feature::WideSubgroups`]; implies `subgroups`. `Display` does not show it.
    pub wide_subgroups: bool,
    /// [`Feature::F16`].
    pub f16: bool,
}

impl Features {
    /// None: the portable variant, which every device runs.
    pub const NONE: Features = Features { subgroups: false, wide_subgroups: false, f16: false };
    /// All.
    pub const ALL: Features = Features { subgroups: true, wide_subgroups: true, f16: true };
    /// Lanes of the shortest subgroup that counts as wide.
    pub const WIDE_LANES: u32 = 8;

    /// Whether the set contains `feature`.
    pub fn has(self, feature: Feature) -> bool {
        match feature {
            Feature::Subgroups => self.subgroups,
            Feature::WideSubgroups => self.wide_subgroups,
            Feature::F16 => self.f16,
        }
    }

    /// The set with `feature` added.
    pub fn with(mut self, feature: Feature) -> Self {
        match feature {
            Feature::Subgroups => self.subgroups = true,
            Feature::WideSubgroups => (self.subgroups, self.wide_subgroups) = (true, true),
            Feature::F16 => self.f16 = true,
        }
        self
    }

    /// The features in both sets.
    pub fn and(self, other: Features) -> Self {
        Features {
            subgroups: self.subgroups && other.subgroups,
            wide_subgroups: self.wide_subgroups && other.wide_subgroups,
            f16: self.f16 && other.f16,
        }
    }

    /// The subsets of this set, from none to itself: one, two or four. Wide subgroups and
    /// cooperative matrices stay with subgroups.
    pub fn subsets(self) -> Vec<Features> {
        let of = |subgroups, f16| Features { subgroups, wide_subgroups: subgroups && self.wide_subgroups, f16 };
        let all = [Features::NONE, of(true, false), of(false, true), of(true, true)];
        all.into_iter().filter(|s| s.and(self) == *s).collect()
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.subgroups, self.f16) {
            (false, false) => "portable",
            (true, false) => "subgroups",
            (false, true) => "f16",
            (true, true) => "subgroups + f16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_go_from_portable_to_the_whole_set() {
        let names = |f: Features| f.subsets().iter().map(Features::to_string).collect::<Vec<_>>();
        assert_eq!(names(Features::ALL), ["portable", "subgroups", "f16", "subgroups + f16"]);
        assert_eq!(names(Features::NONE.with(Feature::F16)), ["portable", "f16"]);
        assert_eq!(names(Features::NONE), ["portable"]);
    }
}
