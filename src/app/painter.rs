//! Paints egui with its own wgpu device, so that a lost or busy engine device does not block the
//! window.

use std::sync::Arc;

use egui::{ClippedPrimitive, Color32, TexturesDelta};
use winit::dpi::PhysicalSize;
use winit::window::Window;

use super::mesh_painter::MeshPainter;
use crate::error::{Context, Error, Result};

/// Surface, device and egui renderer of a window.
pub struct Painter {
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    device: wgpu::Device,
    queue: wgpu::Queue,
    meshes: MeshPainter,
}

impl Painter {
    /// Opens a device that can paint the window.
    pub fn new(window: Arc<Window>) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let size = window.inner_size();
        let surface =
            instance.create_surface(window).map_err(|e| Error::new(e.to_string())).context("opening a window")?;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::LowPower,
            compatible_surface: Some(&surface),
            ..Default::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&options)).map_err(|e| {
            Error::new(format!(
                "no graphics adapter can paint a window ({e}): install a Vulkan or GL driver, or use the command line"
            ))
        })?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("window"),
            required_limits: wgpu::Limits::downlevel_defaults().using_resolution(adapter.limits()),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| Error::new(format!("the window's device could not be opened: {e}")))?;
        let mut config = surface
            .get_default_config(&adapter, size.width.max(1), size.height.max(1))
            .ok_or_else(|| Error::new("the adapter cannot paint this window"))?;
        // egui writes colours that are already gamma-encoded, so the surface must not convert them
        // to sRGB.
        let formats = surface.get_capabilities(&adapter).formats;
        if let Some(plain) = formats.into_iter().find(|f| !f.is_srgb()) {
            config.format = plain;
        }
        config.desired_maximum_frame_latency = 1; // queued frames add input lag
        surface.configure(&device, &config);
        let meshes = MeshPainter::new(&device, config.format);
        Ok(Self { surface, config, device, queue, meshes })
    }

    /// Largest width or height of a texture, in pixels.
    pub fn max_texture_side(&self) -> usize {
        self.device.limits().max_texture_dimension_2d as usize
    }

    /// Adapts the surface to a new window size.
    pub fn resize(&mut self, size: PhysicalSize<u32>) {
        (self.config.width, self.config.height) = (size.width.max(1), size.height.max(1));
        self.surface.configure(&self.device, &self.config);
    }

    /// Paints a frame over a uniform background. Returns true if the surface was outdated or lost
    /// and the frame must be painted again.
    pub fn paint(
        &mut self,
        ground: Color32,
        primitives: &[ClippedPrimitive],
        mut textures: TexturesDelta,
        scale: f32,
    ) -> bool {
        for (id, deltas) in &textures.set {
            for delta in deltas {
                self.meshes.update_texture(&self.device, &self.queue, *id, delta);
            }
        }
        let painted = match self.surface.get_current_texture() {
            wgpu::CurrentSurfaceTexture::Success(frame) | wgpu::CurrentSurfaceTexture::Suboptimal(frame) => {
                self.paint_on(&frame, ground, primitives, scale);
                self.queue.present(frame);
                true
            }
            wgpu::CurrentSurfaceTexture::Outdated | wgpu::CurrentSurfaceTexture::Lost => {
                self.surface.configure(&self.device, &self.config);
                false
            }
            _ => true, // hidden or not ready: a later redraw paints it
        };
        for id in &textures.free {
            self.meshes.free_texture(*id);
        }
        textures.clear();
        !painted
    }

    /// The clear colour in the encoding that the surface format expects.
    fn clear_value(&self, colour: Color32) -> wgpu::Color {
        let [r, g, b, a] = if self.config.format.is_srgb() {
            egui::Rgba::from(colour).to_array().map(f64::from)
        } else {
            colour.to_array().map(|c| f64::from(c) / 255.0)
        };
        wgpu::Color { r, g, b, a }
    }

    fn paint_on(&mut self, frame: &wgpu::SurfaceTexture, ground: Color32, primitives: &[ClippedPrimitive], scale: f32) {
        let size = [self.config.width, self.config.height];
        self.meshes.prepare(&self.device, &self.queue, primitives, size, scale);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("window") });
        let view = frame.texture.create_view(&wgpu::TextureViewDescriptor::default());
        let attachment = wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations { load: wgpu::LoadOp::Clear(self.clear_value(ground)), store: wgpu::StoreOp::Store },
        };
        let pass = wgpu::RenderPassDescriptor {
            label: Some("window"),
            color_attachments: &[Some(attachment)],
            ..Default::default()
        };
        self.meshes.draw(&mut encoder.begin_render_pass(&pass));
        self.queue.submit([encoder.finish()]);
    }
}
