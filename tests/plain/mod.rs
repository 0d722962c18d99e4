//! LRSA as its papers define it, and sliding windows, with nothing that makes it fast: a dense
//! mask, a plain softmax, everything in f64. It shares no code with the engine, which is judged by
//! it.

/// Sizes of a problem: sequences of `lengths` tokens, one after the other in flat rows.
#[derive(Clone, Debug)]
pub struct Shape {
    /// H.
    pub n_heads: usize,
    /// Hk.
    pub n_kv_heads: usize,
    /// d.
    pub dim: usize,
    /// S.
    pub sink: usize,
    /// L.
    pub lag: usize,
    /// r.
    pub keep: f64,
    /// W, instead of LRSA.
    pub window: Option<usize>,
    pub lengths: Vec<usize>,
}

/// Attention of one shape: rows of q [tokens, H·d] and kv [tokens, 2·Hk·d], keys first.
pub struct Plain<'a> {
    pub shape: &'a Shape,
    pub q: &'a [f64],
    pub kv: &'a [f64],
}

/// Output and gradients, with the layout of q and kv.
pub struct Answer {
    pub out: Vec<f64>,
    pub dq: Vec<f64>,
    pub dkv: Vec<f64>,
}

impl Shape {
    /// K.
    pub fn kept(&self) -> usize {
        (self.keep * self.lag as f64).trunc() as usize
    }

    /// P of a sequence.
    pub fn partitions(&self, n: usize) -> usize {
        if n < self.sink { 0 } else { (n - self.sink) / self.lag }
    }

    /// The partition of a token, -1 for the sink.
    fn partition(&self, t: usize) -> isize {
        if t < self.sink { -1 } else { ((t - self.sink) / self.lag) as isize }
    }

    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// First row and length of each sequence.
    pub fn sequences(&self) -> Vec<(usize, usize)> {
        let starts = self.lengths.iter().scan(0, |next, n| {
            *next += n;
            Some((*next - n, *n))
        });
        starts.collect()
    }

    /// First rows of the scored partitions, over all sequences.
    pub fn scored(&self) -> Vec<usize> {
        if self.window.is_some() {
            return Vec::new();
        }
        let of = |&(start, n): &(usize, usize)| {
            let count = self.partitions(n).saturating_sub(1);
            (0..count).map(move |p| start + self.sink + p * self.lag)
        };
        self.sequences().iter().flat_map(of).collect()
    }

    /// Entries of one head's cache after n tokens, counted instead of computed by a formula.
    pub fn cache_entries(&self, n: usize) -> usize {
        if let Some(window) = self.window {
            return (0..n).filter(|t| t + window >= n).count();
        }
        let parts = self.partitions(n);
        let compressed = |t: usize| self.partition(t) >= 0 && self.partition(t) < parts as isize - 1;
        (0..n).filter(|&t| !compressed(t)).count() + self.kept() * parts.saturating_sub(1)
    }
}

impl Plain<'_> {
    fn row<'b>(&self, values: &'b [f64], t: usize, head: usize, heads: usize) -> &'b [f64] {
        let d = self.shape.dim;
        &values[(t * heads + head) * d..][..d]
    }

    fn key(&self, t: usize, head: usize) -> &[f64] {
        self.row(self.kv, t, head, 2 * self.shape.n_kv_heads)
    }

    fn value(&self, t: usize, head: usize) -> &[f64] {
        self.row(self.kv, t, head + self.shape.n_kv_heads, 2 * self.shape.n_kv_heads)
    }

    /// Whether two tokens have bitwise equal keys and values in a head.
    pub fn same(&self, a: usize, b: usize, head: usize) -> bool {
        self.key(a, head) == self.key(b, head) && self.value(a, head) == self.value(b, head)
    }

    /// Scores of the L tokens of the partition that begins at row `first`, scored by the L tokens
    /// after them.
    pub fn scores(&self, first: usize, head: usize) -> Vec<f64> {
        let keys = self.side(first, |t| self.key(t, head));
        let values = self.side(first, |t| self.value(t, head));
        keys.iter().zip(values).map(|(k, v)| k + v).collect()
    }

    fn side<'b>(&self, first: usize, of: impl Fn(usize) -> &'b [f64]) -> Vec<f64> {
        let (lag, d) = (self.shape.lag, self.shape.dim);
        let judge = first + lag..first + 2 * lag;
        let lo: Vec<f64> = (0..d).map(|c| judge.clone().map(|t| of(t)[c]).fold(f64::INFINITY, f64::min)).collect();
        let hi: Vec<f64> = (0..d).map(|c| judge.clone().map(|t| of(t)[c]).fold(f64::NEG_INFINITY, f64::max)).collect();
        let spread = |t: usize| {
            let normed: Vec<f64> =
                (0..d).map(|c| if hi[c] - lo[c] < 1e-6 { 0.0 } else { (of(t)[c] - lo[c]) / (hi[c] - lo[c]) }).collect();
            let mean = normed.iter().sum::<f64>() / d as f64;
            (normed.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (d - 1) as f64).sqrt()
        };
        softmax(&(first..first + lag).map(spread).collect::<Vec<_>>())
    }

    /// The kept rows of the partition at `first`: the K highest scores, ties to the lowest row,
    /// ascending.
    pub fn select(&self, first: usize, head: usize) -> Vec<usize> {
        let scores = self.scores(first, head);
        let better = |i: usize, j: usize| scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
        let rank = |i: usize| (0..scores.len()).filter(|&j| better(i, j)).count();
        (0..scores.len()).filter(|&i| rank(i) < self.shape.kept()).map(|i| first + i).collect()
    }

    /// Output and gradients by the dense formula, for a selection [scored partitions][Hk] of rows
    /// and the output gradient `dout`. `scale` multiplies the attention scores.
    pub fn answer(&self, kept: &[Vec<Vec<usize>>], dout: &[f64], scale: f64) -> Answer {
        let s = self.shape;
        let (heads, kv_heads, d) = (s.n_heads, s.n_kv_heads, s.dim);
        let mut a = Answer { out: vec![0.0; self.q.len()], dq: vec![0.0; self.q.len()], dkv: vec![0.0; self.kv.len()] };
        for (start, n) in s.sequences() {
            for h in 0..heads {
                let head = h / (heads / kv_heads);
                let is_kept: Vec<bool> =
                    (0..n).map(|j| kept.iter().any(|of| of[head].contains(&(start + j)))).collect();
                for t in 0..n {
                    let sees = |j: usize| {
                        let near = match s.window {
                            Some(window) => j + window > t,
                            None => j < s.sink || s.partition(j) >= s.partition(t) - 1,
                        };
                        j <= t && (near || is_kept[j])
                    };
                    let seen: Vec<usize> = (0..n).filter(|&j| sees(j)).collect();
                    let q = self.row(self.q, start + t, h, heads);
                    let logits: Vec<f64> = seen.iter().map(|&j| scale * dot(q, self.key(start + j, head))).collect();
                    let p = softmax(&logits);
                    let at = ((start + t) * heads + h) * d;
                    let dout = &dout[at..at + d];
                    let dp: Vec<f64> = seen.iter().map(|&j| dot(dout, self.value(start + j, head))).collect();
                    let mean = dot(&p, &dp);
                    for (i, &j) in seen.iter().enumerate() {
                        let (key, value) = (self.key(start + j, head), self.value(start + j, head));
                        let ds = p[i] * (dp[i] - mean) * scale;
                        let row = (start + j) * 2 * kv_heads;
                        for c in 0..d {
                            a.out[at + c] += p[i] * value[c];
                            a.dq[at + c] += ds * key[c];
                            a.dkv[(row + head) * d + c] += ds * q[c];
                            a.dkv[(row + kv_heads + head) * d + c] += p[i] * dout[c];
                        }
                    }
                }
            }
        }
        a
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|v| (v - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}
