//! Attention settings: dense, or LRSA with sink S, lag L and keep r; and each layer's attention.

use crate::error::{Error, Result};

/// How the pairs to keep are selected from a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// The K pairs with the highest lag-relative scores.
    #[default]
    Scored,
    /// K random pairs, drawn independently for each layer and head. A control for the scores, in
    /// generation only.
    Random {
        /// Seed of the random generator.
        seed: u64,
    },
    /// No pairs, so that only sink and window remain. A control, in generation only.
    Nothing,
}

/// Lag-Relative Sparse Attention with its settings S, L and r.
///
/// ```
/// use longreach::attention::Lrsa;
///
/// let lrsa = Lrsa::new(16, 128, 0.25)?;
/// assert_eq!(lrsa.kept(), 32); // pairs per partition
/// assert_eq!(lrsa.partitions(10_000), 78);
/// // Sink, kept pairs of all partitions but the last, and the last partition.
/// assert_eq!(lrsa.cache_length(10_000), 16 + 77 * 32 + 128);
/// assert!(Lrsa::new(16, 128, 0.001).is_err()); // keeps no pair
/// # Ok::<(), longreach::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrsa {
    sink: usize,
    lag: usize,
    keep: f64,
    selection: Selection,
}

impl Lrsa {
    /// Default S, for small models.
    pub const DEFAULT_SINK: usize = 16;
    /// Default L, for small models. Use 1024 for 7B-class models.
    pub const DEFAULT_LAG: usize = 128;
    /// Default r: a quarter of every partition, "4x".
    pub const DEFAULT_KEEP: f64 = 0.25;

    /// Fails unless K = truncate(r · L) lies in 1..=L.
    pub fn new(sink: usize, lag: usize, keep: f64) -> Result<Self> {
        let this = Self { sink, lag, keep, selection: Selection::Scored };
        if lag == 0 || !(keep > 0.0 && keep <= 1.0) {
            return Err(Error::usage(format!(
                "LRSA with `lag` {lag} `keep` {keep} is not possible: the lag is at least 1 token and keep lies in (0, 1]"
            )));
        }
        if this.kept() == 0 {
            return Err(Error::usage(format!(
                "`lag` {lag} `keep` {keep} keeps K = 0 pairs of each partition: raise `keep` to at least {} or the lag",
                1.0 / lag as f64
            )));
        }
        if sink > 1 << 24 || lag > 1 << 24 {
            return Err(Error::usage(format!("`sink` {sink} `lag` {lag}: at most {} tokens each", 1 << 24)));
        }
        Ok(this)
    }

    /// The same settings with another r. Fails as [`Lrsa::new`] does.
    pub fn with_keep(self, keep: f64) -> Result<Self> {
        Ok(Self::new(self.sink, self.lag, keep)?.with_selection(self.selection))
    }

    /// The same settings with another selection, for controls.
    pub fn with_selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// The selection.
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// S: number of tokens at the start that every query sees.
    pub fn sink(&self) -> usize {
        self.sink
    }

    /// L: tokens per partition.
    pub fn lag(&self) -> usize {
        self.lag
    }

    /// Most tokens of a sequence that keeps all its pairs: S + 2L.
    pub fn longest_whole(&self) -> usize {
        self.sink + 2 * self.lag
    }

    /// r: the fraction of each partition that is kept.
    pub fn keep(&self) -> f64 {
        self.keep
    }

    /// K = truncate(r · L): pairs kept per partition; 0 for [`Selection::Nothing`].
    pub fn kept(&self) -> usize {
        match self.selection {
            Selection::Nothing => 0,
            _ => (self.keep * self.lag as f64) as usize,
        }
    }

    /// P: number of full partitions in a sequence of n tokens.
    pub fn partitions(&self, n: usize) -> usize {
        n.saturating_sub(self.sink) / self.lag
    }

    /// Cache entries per head after n tokens (LagKV eq. 12).
    pub fn cache_length(&self, n: usize) -> usize {
        if n < self.sink + 2 * self.lag {
            return n;
        }
        let (parts, rest) = ((n - self.sink) / self.lag, (n - self.sink) % self.lag);
        self.sink + self.kept() * (parts - 1) + self.lag + rest
    }
}

/// The cache with this r: `dense` or its compression, such as `4x`.
pub fn cache_name(keep: f64) -> String {
    match 1.0 / keep {
        ..=1.0 => "dense".into(),
        factor => format!("{}x", (factor * 100.0).round() / 100.0),
    }
}

impl Default for Lrsa {
    fn default() -> Self {
        Self {
            sink: Self::DEFAULT_SINK,
            lag: Self::DEFAULT_LAG,
            keep: Self::DEFAULT_KEEP,
            selection: Selection::Scored,
        }
    }
}

/// The attention of layers with full attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attention {
    /// Every query sees all earlier tokens.
    Dense,
    /// Every query sees the sink, its own and the previous partition, and older kept pairs.
    Lrsa(Lrsa),
}

impl Attention {
    /// Cache entries per head after n tokens.
    pub fn cache_length(&self, n: usize) -> usize {
        match self {
            Attention::Dense => n,
            Attention::Lrsa(lrsa) => lrsa.cache_length(n),
        }
    }
}

/// Head counts and head size of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H: query heads.
    pub queries: usize,
    /// Hk: key-value heads.
    pub keys: usize,
    /// d: channels per head, a multiple of 4.
    pub dim: usize,
}

impl Heads {
    /// g: query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.queries / self.keys
    }

    /// 1/√d, the usual scale of the scores.
    pub fn scale(&self) -> f32 {
        (1.0 / (self.dim as f64).sqrt()) as f32
    }

    /// Columns of a kv row: Hk keys of d channels, then Hk values.
    pub fn kv_cols(&self) -> usize {
        2 * self.keys * self.dim
    }
}

/// The attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerAttention {
    /// Full attention: dense or LRSA.
    Full(Attention),
    /// The sliding window of the model: the number of tokens a query sees, itself included. Such a
    /// layer is never compressed.
    Window(usize),
}

impl LayerAttention {
    /// The attention of a layer: its sliding window if it has one, else `attention`.
    pub fn new(attention: Attention, window: Option<usize>) -> Self {
        window.map_or(Self::Full(attention), Self::Window)
    }

    /// Cache entries per head after n tokens.
    pub fn cache_length(&self, n: usize) -> usize {
        match self {
            Self::Full(attention) => attention.cache_length(n),
            Self::Window(window) => n.min(*window),
        }
    }

    /// The LRSA settings of a compressed layer.
    pub fn lrsa(&self) -> Option<Lrsa> {
        match self {
            Self::Full(Attention::Lrsa(lrsa)) => Some(*lrsa),
            _ => None,
        }
    }

    /// Fails for a selection that is a control for generation only.
    pub(super) fn check_trainable(&self) -> Result<()> {
        let is_control = self.lrsa().is_some_and(|l| l.selection() != Selection::Scored);
        crate::ensure!(!is_control, "{self} is a control for generation only: train with LRSA or dense");
        Ok(())
    }
}

impl From<Attention> for LayerAttention {
    fn from(attention: Attention) -> Self {
        Self::Full(attention)
    }
}

/// The distinct kinds of attention among the layers, in order of first use, and the index of the
/// kind of each layer.
pub(super) fn kinds_of(layers: &[LayerAttention]) -> (Vec<LayerAttention>, Vec<usize>) {
    let mut kinds: Vec<LayerAttention> = Vec::new();
    let mut kind_of = |layer: &LayerAttention| {
        kinds.iter().position(|kind| kind == layer).unwrap_or_else(|| {
            kinds.push(*layer);
            kinds.len() - 1
        })
    };
    let of_layers = layers.iter().map(&mut kind_of).collect();
    (kinds, of_layers)
}

impl std::fmt::Display for LayerAttention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(attention) => attention.fmt(f),
            Self::Window(window) => write!(f, "a window of {window}"),
        }
    }
}

impl std::fmt::Display for Attention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Attention::Dense => f.write_str("dense"),
            Attention::Lrsa(l) => match l.selection {
                Selection::Scored => write!(f, "LRSA S={} L={} r={} (K={})", l.sink, l.lag, l.keep, l.kept()),
                Selection::Random { .. } => write!(f, "random S={} L={} K={}", l.sink, l.lag, l.kept()),
                Selection::Nothing => write!(f, "sink {} and window {}-{}", l.sink, l.lag, 2 * l.lag),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_truncates_as_python_does() {
        assert_eq!(Lrsa::new(16, 20, 0.35).unwrap().kept(), 7);
        assert_eq!(Lrsa::new(16, 100, 0.29).unwrap().kept(), 28);
        assert_eq!(Lrsa::new(16, 128, 0.25).unwrap().kept(), 32);
    }

    #[test]
    fn nothing_kept_or_more_than_all_is_refused() {
        for (lag, keep) in [(10, 0.05), (0, 0.5), (10, 1.5), (10, -1.0), (10, f64::NAN)] {
            assert!(Lrsa::new(4, lag, keep).is_err(), "lag {lag} keep {keep}");
        }
    }

    #[test]
    fn layers_of_one_kind_share_it() {
        let full = LayerAttention::from(Attention::Dense);
        let [near, far] = [4, 9].map(LayerAttention::Window);
        let (kinds, of_layers) = kinds_of(&[near, full, near, far, full]);
        assert_eq!((kinds, of_layers), (vec![near, full, far], vec![0, 1, 0, 2, 1]));
        assert_eq!([3, 4, 5].map(|n| near.cache_length(n)), [3, 4, 4]);
    }

    #[test]
    fn cache_length_counts_sink_kept_and_tail() {
        let l = Lrsa::new(4, 16, 0.25).unwrap();
        assert_eq!(
            [0, 3, 35, 36, 51, 52].map(|n| l.cache_length(n)),
            [0, 3, 35, 4 + 4 + 16, 4 + 4 + 16 + 15, 4 + 8 + 16]
        );
    }
}
