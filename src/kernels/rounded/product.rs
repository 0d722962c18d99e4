//! Products of packed weights with rounded activations, of any number of rows.

use rayon::prelude::*;

use super::chunk::{CHUNK, Chunk, round_row};
use super::rows::rounded_dots;
use super::tiles::{Panel, rounded_tile};
use crate::formats::blocks::{RUN, by_format};
use crate::formats::codes::Codes;
use crate::gpu::Scratch;
use crate::kernels::few_rows::MOST_ROWS;
use crate::kernels::product::View;
use crate::kernels::row_tasks::{LINE, RowTasks, TASKS_A_THREAD, WholeRows, from_line, store};
use crate::simd::{LANES, widest_dot_rows};
use crate::tensor::Format;

/// The size of a chunk in f32.
const CHUNK_LEN: usize = size_of::<Chunk>() / size_of::<f32>();

/// out [m, n] (rows `out_row` apart) = alpha · round(x) [m, k] wᵀ + beta · out; does not read out if
/// beta is 0. The format is quantised.
pub fn times_rounded(
    w: WholeRows<'_>,
    x: View<'_, f32>,
    [m, n]: [usize; 2],
    (out, out_row): (&mut [f32], usize),
    [alpha, beta]: [f32; 2],
    scratch: &Scratch<f32>,
) {
    let chunks = w.k.div_ceil(CHUNK);
    let is_few = m <= MOST_ROWS;
    scratch.with(m * chunks * CHUNK_LEN + LINE + if is_few { m * n } else { 0 }, |memory| {
        let (rounded, sums) = from_line(memory).split_at_mut(m * chunks * CHUNK_LEN);
        let rounded: &mut [Chunk] = bytemuck::cast_slice_mut(rounded);
        let group = by_format!(quantised w.format, group_len());
        let round = |(r, out): (usize, &mut [Chunk])| round_row(&x.data[r * x.row..][..w.k], group, out);
        if is_few {
            rounded.chunks_mut(chunks).enumerate().for_each(round);
        } else {
            rounded.par_chunks_mut(chunks).enumerate().for_each(round);
        }
        let rounded = &*rounded;
        if !is_few {
            return by_tiles(w, rounded, [m, n], (out, out_row), [alpha, beta]);
        }
        let tasks = RowTasks { w, m, n, most: widest_dot_rows() };
        tasks.run(sums, (out, out_row), [alpha, beta], |words, first, rows, sums| {
            let x = &rounded[first * chunks..(first + rows) * chunks];
            match rows {
                1 => by_format!(quantised w.format, rounded_dots[1](words, w.k, x, sums)),
                2 => by_format!(quantised w.format, rounded_dots[2](words, w.k, x, sums)),
                _ => by_format!(quantised w.format, rounded_dots[4](words, w.k, x, sums)),
            }
        });
    });
}

/// Elements of a group of weights that share a scale.
fn group_len<const WORDS: usize, const RUNS: usize, B: Codes<WORDS, RUNS>>() -> usize {
    if B::HALVES { RUN / 2 } else { RUN }
}

/// The output, of which threads write different columns.
#[derive(Clone, Copy)]
struct Output {
    out: *mut f32,
    row: usize,
}

// SAFETY: no two threads get the same column.
unsafe impl Sync for Output {}
// SAFETY: as above.
unsafe impl Send for Output {}

fn by_tiles(
    w: WholeRows<'_>,
    x: &[Chunk],
    [m, n]: [usize; 2],
    (out, out_row): (&mut [f32], usize),
    [alpha, beta]: [f32; 2],
) {
    assert!((m - 1) * out_row + n <= out.len() && out_row >= n, "the output holds the product");
    let row_words = w.row_words();
    let output = Output { out: out.as_mut_ptr(), row: out_row };
    let tasks = rayon::current_num_threads() * TASKS_A_THREAD;
    let rows = n.div_ceil(tasks).next_multiple_of(LANES);
    w.words[..n * row_words].par_chunks(rows * row_words).enumerate().for_each(|(task, words)| {
        let mut panel = Box::new(Panel::ZERO);
        let mut sums = vec![[0.0; LANES]; m];
        for (tile, words) in words.chunks(LANES * row_words).enumerate() {
            let count = words.len() / row_words;
            by_format!(quantised w.format, rounded_tile(words, w.k, x, &mut panel, &mut sums));
            let column = task * rows + tile * LANES;
            for (r, sums) in sums.iter().enumerate() {
                // SAFETY: the assertion keeps the elements within the output, and no other task has
                // these columns.
                let out = unsafe {
                    let Output { out, row } = { output };
                    std::slice::from_raw_parts_mut(out.add(r * row + column), count)
                };
                store(out, &sums[..count], [alpha, beta]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::blocks::unpack;
    use crate::simd::HIDDEN;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Words of random rows whose values lie roughly in -2 to 2.
    fn weight(format: Format, n: usize, k: usize, rng: &mut StdRng) -> Vec<u32> {
        let layout = format.dtype().block_layout().expect("the format is quantised");
        let mut words: Vec<u32> = (0..format.n_words(n * k)).map(|_| rng.random()).collect();
        for block in words.chunks_mut(format.block_words()) {
            layout.write_scales(bytemuck::cast_slice_mut(block), |size| size * rng.random_range(0.5..1.0));
        }
        words
    }

    /// The product by its definition, and Σ |x·w|.
    fn expected(w: &[f32], x: &[f32], k: usize) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for (x, w) in x.as_chunks::<RUN>().0.iter().zip(w[..k].as_chunks::<RUN>().0) {
            let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            for (&x, &w) in x.iter().zip(w) {
                let code = (x * (127.0 / most)).round_ties_even();
                let rounded = f64::from(most / 127.0) * f64::from(code);
                sums.0 += rounded * f64::from(w);
                sums.1 += (rounded * f64::from(w)).abs();
            }
        }
        sums
    }

    #[test]
    fn products_are_those_of_the_rounded_rows() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for hidden in 0..4 {
            pool.install(|| {
                HIDDEN.set(hidden);
                check_products(hidden);
            });
        }
    }

    /// Compares products of all formats with their definition, with so many instruction sets hidden.
    fn check_products(hidden: usize) {
        let mut rng = StdRng::seed_from_u64(3);
        let scratch = Scratch::new();
        for format in Format::QUANTISED {
            // Rows of whole chunks, of a part of one, and with a last run without a partner.
            for k in [512, format.block_len() * 5, format.block_len() * 19] {
                let n = 37;
                let words = weight(format, n, k, &mut rng);
                let mut w = vec![0.0; n * k];
                unpack(format, &words, &mut w);
                for m in [1, 2, 7, MOST_ROWS, MOST_ROWS + 9] {
                    let x: Vec<f32> = (0..m * (k + 1)).map(|_| rng.random_range(-3.0..3.0)).collect();
                    let (x_row, out_row) = (k + 1, n + 2);
                    let mut out = vec![0.25f32; m * out_row];
                    let (w_rows, x_rows) = (WholeRows { words: &words, format, k }, View::rows(&x, x_row));
                    times_rounded(w_rows, x_rows, [m, n], (&mut out, out_row), [0.5, 2.0], &scratch);
                    for (r, out) in out.chunks(out_row).enumerate() {
                        for (j, got) in out[..n].iter().enumerate() {
                            let (sum, size) = expected(&w[j * k..], &x[r * x_row..][..k], k);
                            let error = (f64::from(*got) - (0.5 * sum + 0.5)).abs();
                            assert!(
                                error <= 1e-6 * (size + 1.0),
                                "{format:?} k {k} m {m} [{r}, {j}], {hidden} hidden: off by {error}"
                            );
                        }
                        assert_eq!(out[n..], [0.25; 2], "{format:?}: columns past the product");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gets_the_same_bits_in_company_and_on_any_number_of_threads() {
        let (format, n, k) = (Format::Q4K, 700, 768);
        let mut rng = StdRng::seed_from_u64(4);
        let words = weight(format, n, k, &mut rng);
        let x: Vec<f32> = (0..100 * k).map(|_| rng.random_range(-1.0..1.0)).collect();
        let product = |first: usize, m: usize, threads: usize| {
            let mut out = vec![f32::NAN; m * n];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (w, x) = (WholeRows { words: &words, format, k }, View::rows(&x[first * k..], k));
            pool.install(|| times_rounded(w, x, [m, n], (&mut out, n), [1.0, 0.0], &Scratch::new()));
            out
        };
        let alone: Vec<f32> = (0..MOST_ROWS).flat_map(|r| product(r, 1, 1)).collect();
        for (m, threads) in [(2, 1), (7, 3), (MOST_ROWS, 2)] {
            assert!(product(0, m, threads) == alone[..m * n], "{m} rows on {threads} threads");
        }
        let many = product(0, 100, 1);
        for (m, threads) in [(100, 3), (41, 2)] {
            assert!(product(0, m, threads) == many[..m * n], "{m} rows on {threads} threads");
        }
    }
}
