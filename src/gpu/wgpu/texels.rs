//! Operands as textures: copied from their buffers right before a dispatch reads them with
//! `textureLoad`.
//!
//! A kernel requests this with [`crate::gpu::Binding::as_texels`]. Some drivers fetch texels much
//! faster than buffer elements: llvmpipe in Mesa 22.3 reads buffers lane by lane, textures as
//! vectors. Recordings do not use it: only alternatives have such bindings, and a device runs them
//! where they are faster despite the copies.
//!
//! They are storage textures: for sampled ones llvmpipe computes the level of detail of every lane,
//! which triples the cost of a fetch.
//!
//! A texel is four adjacent numbers: floats, or the 16-bit values of two words. Texels are in
//! buffer order, 1,024 to a texture row, so that any shape fits.

use std::collections::HashMap;

use super::faults::Faults;
use super::part::Part;
use crate::error::{Context, Result};
use crate::gpu::Kind;

/// Used texels of a texture row; the shaders rely on it.
const ROW: u64 = 1024;
/// Unused texels of a row. Without them, rows a power of two apart would map to the same few cache
/// lines.
const PADDING: u64 = 8;
/// Maximum elements of a span: 16 MiB, so that all textures of a device together stay below 128
/// MiB.
pub const MAX_ELEMENTS: usize = 1 << 22;

fn format(kind: Kind) -> wgpu::TextureFormat {
    match kind {
        Kind::Real => wgpu::TextureFormat::Rgba32Float,
        Kind::Packed => wgpu::TextureFormat::Rg32Uint,
        Kind::I32 | Kind::U32 => unreachable!("textures hold numbers of matrices"),
    }
}

fn bytes_per_texel(kind: Kind) -> u64 {
    u64::from(format(kind).block_copy_size(None).expect("a colour"))
}

/// The binding type of a texture of this kind.
pub(super) fn binding_type(kind: Kind) -> wgpu::BindingType {
    wgpu::BindingType::StorageTexture {
        access: wgpu::StorageTextureAccess::ReadOnly,
        format: format(kind),
        view_dimension: wgpu::TextureViewDimension::D2,
    }
}

/// A texture that holds the operand of one dispatch at a time.
#[derive(Clone, Debug)]
pub(super) struct Texture {
    texture: wgpu::Texture,
    bytes_per_texel: u64,
    pub(super) view: wgpu::TextureView,
}

/// The textures of a device, by binding, kind and number of rows, a power of two.
#[derive(Default)]
pub(super) struct Texels {
    made: HashMap<(usize, Kind, u32), Texture>,
}

impl Texels {
    /// A texture for the part of a buffer that a dispatch binds at `binding`.
    pub(super) fn texture(
        &mut self,
        device: &wgpu::Device,
        faults: &Faults,
        (binding, kind): (usize, Kind),
        part: Part,
    ) -> Result<Texture> {
        let bytes_per_texel = bytes_per_texel(kind);
        let rows = part.len.div_ceil(bytes_per_texel * ROW).next_power_of_two() as u32;
        if let Some(made) = self.made.get(&(binding, kind, rows)) {
            return Ok(made.clone());
        }
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("operand"),
            size: wgpu::Extent3d { width: (ROW + PADDING) as u32, height: rows, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: format(kind),
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        faults.check().context("allocating a texture for an operand of a matrix product")?;
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let made = Texture { texture, bytes_per_texel, view };
        self.made.insert((binding, kind, rows), made.clone());
        Ok(made)
    }

    /// Bytes of all textures.
    pub(super) fn n_bytes(&self) -> u64 {
        self.made.keys().map(|(_, kind, rows)| u64::from(*rows) * (ROW + PADDING) * bytes_per_texel(*kind)).sum()
    }

    /// Drops all textures.
    pub(super) fn release(&mut self) {
        self.made.clear();
    }
}

/// Copies a part of a buffer into its texture: whole rows, then the partial last row. The last
/// texel may extend past the part: buffers are padded.
pub(super) fn copy(encoder: &mut wgpu::CommandEncoder, from: &wgpu::Buffer, part: Part, to: &Texture) {
    let n = part.len.div_ceil(to.bytes_per_texel);
    let bytes_per_row = ROW * to.bytes_per_texel;
    let (rows, rest) = ((n / ROW) as u32, (n % ROW) as u32);
    for (y, width, height) in [(0, ROW as u32, rows), (rows, rest, 1)] {
        if width * height == 0 {
            continue;
        }
        let layout = wgpu::TexelCopyBufferLayout {
            offset: part.offset + u64::from(y) * bytes_per_row,
            bytes_per_row: Some(bytes_per_row as u32),
            rows_per_image: None,
        };
        let to = wgpu::TexelCopyTextureInfo {
            texture: &to.texture,
            mip_level: 0,
            origin: wgpu::Origin3d { x: 0, y, z: 0 },
            aspect: wgpu::TextureAspect::All,
        };
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer: from, layout }, to, size);
    }
}
