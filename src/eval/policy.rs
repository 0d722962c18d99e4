//! Attention policies to compare: dense, LRSA with some compression, and controls with the same
//! cache size.

use crate::attention::{Attention, Lrsa, Selection};
use crate::error::{Error, Result};

/// A named attention policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Fixed(Attention),
    /// Sink and recent tokens only, with as many entries as this LRSA.
    WindowLike(Lrsa),
}

impl Policy {
    /// Parses a name: `dense`, or `4x` for LRSA with r = 1/4 (any factor). Controls with as many
    /// cache entries are `random-4x`, which keeps random pairs, and `window-4x`, which keeps only
    /// the sink and a longer recent window. `seed` is the seed of random selections.
    pub fn parse(name: &str, sink: usize, lag: usize, seed: u64) -> Result<Self> {
        let unknown = || {
            Error::usage(format!(
                "'{name}' is not a known attention: use dense, 2x, 4x or another factor, random-4x, window-4x"
            ))
        };
        let name = name.trim();
        if name == "dense" {
            return Ok(Self { name: name.to_string(), kind: Kind::Fixed(Attention::Dense) });
        }
        let (control, factor) = name.rsplit_once('-').map_or((None, name), |(c, f)| (Some(c), f));
        let factor = Self::factor(factor).ok_or_else(unknown)?;
        let lrsa = Lrsa::new(sink, lag, 1.0 / factor)?;
        let kind = match control {
            None => Kind::Fixed(Attention::Lrsa(lrsa)),
            Some("random") => Kind::Fixed(Attention::Lrsa(lrsa.with_selection(Selection::Random { seed }))),
            Some("window") => Kind::WindowLike(lrsa),
            Some(_) => return Err(unknown()),
        };
        Ok(Self { name: name.to_string(), kind })
    }

    /// The compression that a text such as `4x` names; it is finite and at least 1.
    pub fn factor(text: &str) -> Option<f64> {
        text.strip_suffix('x')?.parse::<f64>().ok().filter(|factor| *factor >= 1.0 && factor.is_finite())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compression factor of a partition; 1 for dense.
    pub fn compression(&self) -> f64 {
        match self.kind {
            Kind::Fixed(Attention::Lrsa(l)) | Kind::WindowLike(l) => 1.0 / l.keep(),
            Kind::Fixed(Attention::Dense) => 1.0,
        }
    }

    /// Whether it is a control rather than dense or LRSA.
    pub fn is_control(&self) -> bool {
        self.name.contains('-')
    }

    /// The attention for a prompt of `n` tokens.
    pub fn attention(&self, n: usize) -> Result<Attention> {
        match self.kind {
            Kind::Fixed(attention) => Ok(attention),
            Kind::WindowLike(like) => Ok(Attention::Lrsa(window_like(&like, n)?)),
        }
    }
}

/// Sink and recent window with the largest cache after n tokens that is not larger than the cache
/// of `like`.
fn window_like(like: &Lrsa, n: usize) -> Result<Lrsa> {
    let room = like.cache_length(n);
    let window = |lag: usize| Lrsa::new(like.sink(), lag, 1.0).map(|l| l.with_selection(Selection::Nothing));
    let mut best = window(1)?;
    for lag in 2..=room.saturating_sub(like.sink()).max(1) {
        let lrsa = window(lag)?;
        if (best.cache_length(n)..=room).contains(&lrsa.cache_length(n)) {
            best = lrsa;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_kept() {
        let parse = |name| Policy::parse(name, 16, 64, 0);
        assert_eq!(parse("dense").unwrap().attention(1000).unwrap(), Attention::Dense);
        let lrsa = Lrsa::new(16, 64, 0.25).unwrap();
        assert_eq!(parse("4x").unwrap().attention(1000).unwrap(), Attention::Lrsa(lrsa));
        assert_eq!(parse("2.5x").unwrap().compression(), 2.5);
        assert_eq!(parse("random-8x").unwrap().attention(1000).unwrap().cache_length(1000), {
            Lrsa::new(16, 64, 0.125).unwrap().cache_length(1000)
        });
        for bad in ["", "4", "x", "0x", "0.5x", "infx", "nanx", "some-4x", "random-x", "1000x", "-4x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_is_as_long_as_the_cache_that_it_stands_beside() {
        for n in [10, 150, 500, 1000, 1001, 3000] {
            let (like, window) = (
                Lrsa::new(16, 64, 0.25).unwrap(),
                Policy::parse("window-4x", 16, 64, 0).unwrap().attention(n).unwrap(),
            );
            let (room, used) = (like.cache_length(n), window.cache_length(n));
            assert!(used <= room && used * 10 >= room * 9, "{n}: {used} of {room}");
        }
    }
}
