//! RoPE tables on a device: for each RoPE setting of a model, the rotation of keys and of queries.

use super::rope::{query_factor, tables};
use super::rope_config::RopeConfig;
use crate::error::{Context, Result};
use crate::gpu::{Executor, check_host_memory};
use crate::kernels::rope::RopeTables;
use crate::tensor::{Format, Tensor};
use std::ops::Range;

/// The tables of one RoPE setting.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// Of the keys.
    pub(super) keys: RopeTables,
    /// Of the queries: the same tables, unless queries grow with their position.
    pub(super) queries: RopeTables,
}

/// The tables of all RoPE settings of a model.
#[derive(Clone, Debug)]
pub(crate) struct Rotations {
    of: Vec<Rotation>,
    n_rows: usize,
}

impl Rotations {
    /// Tables of `n_rows` rows without contents.
    pub(crate) fn new(device: &mut dyn Executor, ropes: &[RopeConfig], n_rows: usize) -> Result<Self> {
        let bytes = |rope: &RopeConfig| (n_rows as u64).saturating_mul(4 * rope.rotary_dim as u64);
        check_host_memory(ropes.iter().map(bytes).fold(0, u64::saturating_add), 0)
            .with_context(|| format!("rotation tables for {n_rows} positions"))?;
        let limits = device.limits();
        let new = |what: &str, rope: &RopeConfig| -> Result<RopeTables> {
            let table = |function: &str| {
                let label = format!("rope {function}{what}");
                Tensor::persistent(&label, Format::F32, n_rows, rope.rotary_dim / 2, &limits)
            };
            Ok(RopeTables { cos: table("cos")?, sin: table("sin")? })
        };
        let rotation = |rope: &RopeConfig| -> Result<Rotation> {
            let keys = new("", rope)?;
            let queries = if rope.query_scale.is_some() { new(" of queries", rope)? } else { keys.clone() };
            Ok(Rotation { keys, queries })
        };
        Ok(Self { of: ropes.iter().map(rotation).collect::<Result<_>>()?, n_rows })
    }

    /// Tables for the positions 0..`n_rows` of a text of `length` tokens.
    pub(crate) fn upload(
        device: &mut dyn Executor,
        ropes: &[RopeConfig],
        length: usize,
        n_rows: usize,
    ) -> Result<Self> {
        let new = Self::new(device, ropes, n_rows)?;
        new.fill(device, ropes, length, 0..n_rows)?;
        Ok(new)
    }

    /// Writes the rows of these positions of a text of `length` tokens to the first rows.
    pub(crate) fn fill(
        &self,
        device: &mut dyn Executor,
        ropes: &[RopeConfig],
        length: usize,
        positions: Range<usize>,
    ) -> Result<()> {
        assert!(positions.len() <= self.n_rows && ropes.len() == self.of.len(), "tables for these positions");
        for (rotation, rope) in self.of.iter().zip(ropes) {
            let (mut cos, mut sin) = tables(rope, length, positions.clone());
            write(device, &rotation.keys, &cos, &sin)?;
            if let Some(scale) = &rope.query_scale {
                for values in [&mut cos, &mut sin] {
                    for (row, position) in values.chunks_mut(rope.rotary_dim / 2).zip(positions.clone()) {
                        let factor = query_factor(scale, position);
                        row.iter_mut().for_each(|x| *x *= factor);
                    }
                }
                write(device, &rotation.queries, &cos, &sin)?;
            }
        }
        Ok(())
    }

    /// The rotation of a RoPE setting.
    pub(super) fn of(&self, rope: usize) -> &Rotation {
        &self.of[rope]
    }
}

/// Writes the first rows.
fn write(device: &mut dyn Executor, tables: &RopeTables, cos: &[f32], sin: &[f32]) -> Result<()> {
    device.write_real(&tables.cos.span().prefix(cos.len()), cos)?;
    device.write_real(&tables.sin.span().prefix(sin.len()), sin)
}
