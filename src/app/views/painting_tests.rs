//! Tests of what draws the window: its dots are those of egui's own renderer.

use egui::{ImageData, TextureId, TextureOptions, epaint::ImageDelta};
use egui_kittest::Harness;

use super::pictures::painted;
use super::view_tests::{Shown, harness, kept, talking};
use crate::app::mesh_painter::MeshPainter;
use crate::app::settings::Theme;

/// Width and height: a row of dots is a multiple of the 256 bytes that a copy needs.
const SIZE: [u32; 2] = [1280, 800];

/// What `MeshPainter` draws of the harness's last frame on a target of this format.
fn drawn(harness: &Harness<'_, Shown>, format: wgpu::TextureFormat) -> Vec<[u8; 3]> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let mut painter = MeshPainter::new(&device, format);
    let fonts = harness.ctx.fonts(|fonts| fonts.image());
    // The texture of the fonts arrives in two parts, as it does when glyphs are added.
    let [width, height] = fonts.size;
    let rows = |from: usize, to: usize| {
        let image = egui::ColorImage::new([width, to - from], fonts.pixels[width * from..width * to].to_vec());
        ImageData::Color(image.into())
    };
    let blank = ImageData::Color(egui::ColorImage::filled(fonts.size, egui::Color32::RED).into());
    let whole = ImageDelta { image: blank, options: TextureOptions::LINEAR, pos: None };
    painter.update_texture(&device, &queue, TextureId::default(), &whole);
    for (from, to) in [(0, height / 2), (height / 2, height)] {
        let part = ImageDelta { image: rows(from, to), options: TextureOptions::LINEAR, pos: Some([0, from]) };
        painter.update_texture(&device, &queue, TextureId::default(), &part);
    }
    let primitives = harness.ctx.tessellate(harness.output().shapes.clone(), 1.0);
    painter.prepare(&device, &queue, &primitives, SIZE, 1.0);
    let target = device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width: SIZE[0], height: SIZE[1], depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
        view_formats: &[],
    });
    let view = target.create_view(&wgpu::TextureViewDescriptor::default());
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let pass = wgpu::RenderPassDescriptor {
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store },
        })],
        ..Default::default()
    };
    painter.draw(&mut encoder.begin_render_pass(&pass));
    let dots = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::from(4 * SIZE[0] * SIZE[1]),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * SIZE[0]), rows_per_image: None };
    encoder.copy_texture_to_buffer(
        target.as_image_copy(),
        wgpu::TexelCopyBufferInfo { buffer: &dots, layout },
        target.size(),
    );
    queue.submit([encoder.finish()]);
    dots.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let bytes = dots.get_mapped_range(..).unwrap();
    bytes.chunks_exact(4).map(|dot| [dot[0], dot[1], dot[2]]).collect()
}

#[test]
fn the_window_is_drawn_as_egui_draws_it() {
    for (name, app, theme) in [("talking", talking(), Theme::Light), ("kept", kept(), Theme::Dark)] {
        let mut app = app;
        app.settings.theme = theme;
        let mut harness = harness(app, (SIZE[0] as f32, SIZE[1] as f32));
        let Some(expected) = painted(&mut harness, &format!("drawn-{name}")) else { return };
        assert!(expected.iter().any(|dot| *dot != expected[0]), "the page is not empty");
        for format in [wgpu::TextureFormat::Rgba8Unorm, wgpu::TextureFormat::Rgba8UnormSrgb] {
            let found = drawn(&harness, format);
            // Filtering rounds elsewhere, and blending of linear colours is another one.
            let (most, often) = if format.is_srgb() { (90, 0.2) } else { (3, 0.0) };
            let differences =
                found.iter().zip(&expected).map(|(a, b)| (0..3).map(|i| a[i].abs_diff(b[i])).max().unwrap_or(0));
            let n_far = differences.clone().filter(|far| *far > 3).count() as f64 / expected.len() as f64;
            let largest = differences.max().unwrap_or(0);
            assert!(largest <= most && n_far <= often, "{name}, {format:?}: {largest}, {n_far}");
        }
    }
}
