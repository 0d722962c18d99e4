//! Seeded mutations of valid files that keep most of their structure.
//!
//! Cuts, flipped bits, numbers at the limits of their types, duplicated and swapped ranges, deep
//! nesting. Equal seeds give equal inputs.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub struct Mutator {
    rng: StdRng,
    seeds: Vec<Vec<u8>>,
}

/// Numbers at the limits of their types, for text files.
const TEXT_NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "-100",
    "4294967295",
    "4294967296",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-0.0",
    "0.1",
    "99999999999999999999999999999999",
];

/// Keywords of the readers' formats.
const WORDS: [&str; 16] = [
    "null",
    "{}",
    "[]",
    "\"\"",
    "true",
    "\"type\":\"Sequence\"",
    "\\ud800",
    "\u{FEFF}",
    "\u{0}",
    "{{",
    "{%",
    "%}",
    "\\",
    "\"",
    "\u{2581}",
    "(?=a)*",
];

impl Mutator {
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), seeds }
    }

    /// One of the seeds with one to six changes.
    pub fn next(&mut self) -> Vec<u8> {
        let pick = self.rng.random_range(0..self.seeds.len());
        let mut bytes = self.seeds[pick].clone();
        for _ in 0..self.rng.random_range(1..=6) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.rng.random_range(0..n) }
    }

    /// A range of `bytes`.
    fn stretch(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len());
        let longest = (bytes.len() - start).min(200);
        start..start + self.below(longest + 1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.rng.random_range(0..10) {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << self.rng.random_range(0..8)),
            2 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = self.rng.random_range(0..=255)),
            3 => self.set_integer(bytes, at),
            4 => self.set_text_number(bytes, at),
            5 => {
                let stretch = self.stretch(bytes);
                let copy = bytes[stretch].repeat([1, 1, 2, 50][self.below(4)]);
                bytes.splice(at..at, copy);
            }
            6 => {
                let stretch = self.stretch(bytes);
                bytes.drain(stretch);
            }
            7 => {
                let other = self.below(self.seeds.len());
                let other = self.seeds[other].clone();
                let stretch = self.stretch(&other);
                bytes.splice(at..at, other[stretch].iter().copied());
            }
            8 => {
                let word = WORDS[self.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
            _ => {
                let open =
                    ["[", "{\"a\":", "{{(", "{% if a %}", "((", "\"", "-", "{\"type\":\"Sequence\",\"normalizers\":["];
                let open = open[self.below(8)].repeat([3, 30, 140, 1000][self.below(4)]);
                bytes.splice(at..at, open.into_bytes());
            }
        }
    }

    /// Overwrites four or eight bytes with a number at the limit of its type.
    fn set_integer(&mut self, bytes: &mut [u8], at: usize) {
        let edges = [
            0,
            1,
            2,
            7,
            31,
            255,
            1 << 16,
            i32::MAX as u64,
            u32::MAX.into(),
            1 << 33,
            i64::MAX as u64,
            u64::MAX - 31,
            u64::MAX,
        ];
        let number = edges[self.below(edges.len())].to_le_bytes();
        let size = [4, 8][self.below(2)];
        bytes.iter_mut().skip(at).zip(&number[..size]).for_each(|(b, n)| *b = *n);
    }

    /// Replaces the next number in a text.
    fn set_text_number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(first) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { return };
        let n = bytes[first..].iter().take_while(|b| b.is_ascii_digit()).count();
        let number = TEXT_NUMBERS[self.below(TEXT_NUMBERS.len())];
        bytes.splice(first..first + n, number.bytes());
    }
}
