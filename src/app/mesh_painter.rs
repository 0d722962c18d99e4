//! Draws the meshes of egui.
//!
//! egui-wgpu's renderer does the same. Its fragment shader has branches for dithering and for
//! filtering by hand, and software drivers compute both sides of a branch for every pixel. Without
//! branches a page takes them a quarter of the time (docs/log.md).

use std::collections::HashMap;
use std::ops::Range;

use egui::epaint::{ImageData, ImageDelta, Primitive, Vertex};
use egui::{ClippedPrimitive, TextureFilter, TextureId, TextureWrapMode};

/// Positions are in points. Colours are gamma-encoded and premultiplied by alpha, as egui has them.
const SHADER: &str = "
@group(0) @binding(0) var<uniform> screen: vec4f;
@group(1) @binding(0) var image: texture_2d<f32>;
@group(1) @binding(1) var filtering: sampler;

struct Corner {
    @builtin(position) at: vec4f,
    @location(0) uv: vec2f,
    @location(1) colour: vec4f,
}

@vertex
fn corner(@location(0) at: vec2f, @location(1) uv: vec2f, @location(2) colour: vec4f) -> Corner {
    let clip = vec2f(2.0 * at.x / screen.x - 1.0, 1.0 - 2.0 * at.y / screen.y);
    return Corner(vec4f(clip, 0.0, 1.0), uv, colour);
}

@fragment
fn gamma(in: Corner) -> @location(0) vec4f {
    return in.colour * textureSample(image, filtering, in.uv);
}

@fragment
fn linear(in: Corner) -> @location(0) vec4f {
    let c = in.colour * textureSample(image, filtering, in.uv);
    let high = pow((c.rgb + 0.055) / 1.055, vec3f(2.4));
    return vec4f(select(high, c.rgb / 12.92, c.rgb < vec3f(0.04045)), c.a);
}
";

/// Pipeline, textures and buffers for one surface format.
pub struct MeshPainter {
    pipeline: wgpu::RenderPipeline,
    /// Width and height of the screen in points.
    screen: wgpu::Buffer,
    screen_group: wgpu::BindGroup,
    textures: HashMap<TextureId, (wgpu::Texture, wgpu::BindGroup)>,
    vertices: wgpu::Buffer,
    indices: wgpu::Buffer,
    draws: Vec<Draw>,
}

/// One mesh of the frame.
struct Draw {
    /// Left, top, width and height in pixels.
    scissor: [u32; 4],
    texture: TextureId,
    indices: Range<u32>,
    first_vertex: i32,
}

impl MeshPainter {
    /// A painter for targets of this format. sRGB targets get linear colours, which they encode.
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("meshes"),
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let vertex = wgpu::VertexBufferLayout {
            array_stride: size_of::<Vertex>() as u64,
            step_mode: wgpu::VertexStepMode::Vertex,
            attributes: &wgpu::vertex_attr_array![0 => Float32x2, 1 => Float32x2, 2 => Unorm8x4],
        };
        let target = wgpu::ColorTargetState {
            format,
            blend: Some(wgpu::BlendState::PREMULTIPLIED_ALPHA_BLENDING),
            write_mask: wgpu::ColorWrites::ALL,
        };
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("meshes"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                buffers: &[Some(vertex)],
            },
            primitive: wgpu::PrimitiveState::default(),
            depth_stencil: None,
            multisample: wgpu::MultisampleState::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some(if format.is_srgb() { "linear" } else { "gamma" }),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                targets: &[Some(target)],
            }),
            multiview_mask: None,
            cache: None,
        });
        let screen = buffer(device, 16, wgpu::BufferUsages::UNIFORM);
        let screen_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("screen"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: screen.as_entire_binding() }],
        });
        let vertices = buffer(device, 1 << 16, wgpu::BufferUsages::VERTEX);
        let indices = buffer(device, 1 << 16, wgpu::BufferUsages::INDEX);
        Self { pipeline, screen, screen_group, textures: HashMap::new(), vertices, indices, draws: Vec::new() }
    }

    /// Creates a texture, or changes a part of one.
    pub fn update_texture(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, id: TextureId, delta: &ImageDelta) {
        let ImageData::Color(image) = &delta.image;
        let [width, height] = image.size.map(|n| n as u32);
        let size = wgpu::Extent3d { width, height, depth_or_array_layers: 1 };
        if delta.pos.is_none() {
            let texture = device.create_texture(&wgpu::TextureDescriptor {
                label: Some("egui"),
                size,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: wgpu::TextureFormat::Rgba8Unorm,
                usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            });
            let group = self.texture_group(device, &texture, delta);
            self.textures.insert(id, (texture, group));
        }
        let Some((texture, _)) = self.textures.get(&id) else { return };
        let [x, y] = delta.pos.unwrap_or_default().map(|n| n as u32);
        let to = wgpu::TexelCopyTextureInfo { origin: wgpu::Origin3d { x, y, z: 0 }, ..texture.as_image_copy() };
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * width), rows_per_image: None };
        queue.write_texture(to, bytemuck::cast_slice(&image.pixels), layout, size);
    }

    fn texture_group(&self, device: &wgpu::Device, texture: &wgpu::Texture, delta: &ImageDelta) -> wgpu::BindGroup {
        let filter = |filter| match filter {
            TextureFilter::Nearest => wgpu::FilterMode::Nearest,
            TextureFilter::Linear => wgpu::FilterMode::Linear,
        };
        let wrap = match delta.options.wrap_mode {
            TextureWrapMode::ClampToEdge => wgpu::AddressMode::ClampToEdge,
            TextureWrapMode::Repeat => wgpu::AddressMode::Repeat,
            TextureWrapMode::MirroredRepeat => wgpu::AddressMode::MirrorRepeat,
        };
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            address_mode_u: wrap,
            address_mode_v: wrap,
            mag_filter: filter(delta.options.magnification),
            min_filter: filter(delta.options.minification),
            ..Default::default()
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("egui"),
            layout: &self.pipeline.get_bind_group_layout(1),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::TextureView(&view) },
                wgpu::BindGroupEntry { binding: 1, resource: wgpu::BindingResource::Sampler(&sampler) },
            ],
        })
    }

    pub fn free_texture(&mut self, id: TextureId) {
        self.textures.remove(&id);
    }

    /// Copies the meshes of a frame to the device. `size` is that of the target in pixels, `scale` the
    /// pixels of a point.
    pub fn prepare(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        primitives: &[ClippedPrimitive],
        size: [u32; 2],
        scale: f32,
    ) {
        let points = [size[0] as f32 / scale, size[1] as f32 / scale, 0.0, 0.0];
        queue.write_buffer(&self.screen, 0, bytemuck::cast_slice(&points));
        let (mut vertices, mut indices): (Vec<Vertex>, Vec<u32>) = Default::default();
        self.draws.clear();
        for ClippedPrimitive { clip_rect, primitive } in primitives {
            let Primitive::Mesh(mesh) = primitive else { continue };
            let Some(scissor) = scissor(*clip_rect, size, scale).filter(|_| !mesh.indices.is_empty()) else { continue };
            let from = indices.len() as u32;
            let first_vertex = vertices.len() as i32;
            indices.extend_from_slice(&mesh.indices);
            vertices.extend_from_slice(&mesh.vertices);
            let indices = from..indices.len() as u32;
            self.draws.push(Draw { scissor, texture: mesh.texture_id, indices, first_vertex });
        }
        fill(device, queue, &mut self.vertices, bytemuck::cast_slice(&vertices));
        fill(device, queue, &mut self.indices, bytemuck::cast_slice(&indices));
    }

    /// Draws the meshes that were prepared.
    pub fn draw(&self, pass: &mut wgpu::RenderPass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.screen_group, &[]);
        pass.set_vertex_buffer(0, self.vertices.slice(..));
        pass.set_index_buffer(self.indices.slice(..), wgpu::IndexFormat::Uint32);
        for Draw { scissor: [x, y, width, height], texture, indices, first_vertex } in &self.draws {
            let Some((_, group)) = self.textures.get(texture) else { continue };
            pass.set_bind_group(1, group, &[]);
            pass.set_scissor_rect(*x, *y, *width, *height);
            pass.draw_indexed(indices.clone(), *first_vertex, 0..1);
        }
    }
}

/// The pixels of a clip rectangle that are on the target, if there are any.
fn scissor(clip: egui::Rect, size: [u32; 2], scale: f32) -> Option<[u32; 4]> {
    let pixel = |at: f32, most: u32| ((at * scale).round().max(0.0) as u32).min(most);
    let (left, top) = (pixel(clip.min.x, size[0]), pixel(clip.min.y, size[1]));
    let (right, bottom) = (pixel(clip.max.x, size[0]), pixel(clip.max.y, size[1]));
    (left < right && top < bottom).then(|| [left, top, right - left, bottom - top])
}

fn buffer(device: &wgpu::Device, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let usage = usage | wgpu::BufferUsages::COPY_DST;
    device.create_buffer(&wgpu::BufferDescriptor { label: Some("meshes"), size, usage, mapped_at_creation: false })
}

/// Copies bytes to a buffer, which grows if it is too small.
fn fill(device: &wgpu::Device, queue: &wgpu::Queue, to: &mut wgpu::Buffer, bytes: &[u8]) {
    if to.size() < bytes.len() as u64 {
        *to = buffer(device, (bytes.len() as u64).next_power_of_two(), to.usage());
    }
    queue.write_buffer(to, 0, bytes);
}
