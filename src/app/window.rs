//! The winit event loop: passes events to egui and the state, and carries out the state's effects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use winit::application::ApplicationHandler;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
#[cfg(all(unix, not(target_os = "macos")))]
use winit::platform::{wayland::WindowAttributesExtWayland, x11::WindowAttributesExtX11};
use winit::window::{Window, WindowId};

use super::chat::{Document, read_document};
use super::desktop::{Meant, icon, meant, no_dialog, save};
use super::library::Library;
use super::message::Event;
use super::models::ModelAction;
use super::painter::Painter;
use super::settings::Settings;
use super::state::{Action, App, Busy, Effect, Notice, Pick};
use super::views;
use super::worker::Worker;
use super::worker_site::Tell;
use crate::error::{Error, Result};

/// Messages to the window from other threads.
#[derive(Debug)]
enum Message {
    Worker(Event),
    Repaint(Instant),
    Picked(Pick, PathBuf),
    Read(Result<Document>),
    Notice(Notice),
}

/// Options of the app at start.
#[derive(Clone, Debug, Default)]
pub struct AppOptions {
    /// Replaces the saved model.
    pub model: Option<String>,
    /// Replaces the saved adapter.
    pub adapter: Option<PathBuf>,
    /// Replaces the saved device.
    pub device: Option<String>,
    /// Document to open at start.
    pub document: Option<PathBuf>,
    /// Settings file; by default the one in the platform's configuration folder.
    pub settings: Option<PathBuf>,
}

/// Opens the window and runs until it is closed.
pub fn run(options: &AppOptions) -> Result<()> {
    let event_loop =
        EventLoop::<Message>::with_user_event().build().map_err(|e| Error::new(without_window(&e.to_string())))?;
    event_loop.set_control_flow(ControlFlow::Wait);
    let mut handler = Handler::new(options, event_loop.create_proxy());
    let ran = event_loop.run_app(&mut handler).map_err(|e| Error::new(format!("the window system failed: {e}")));
    let Handler { app, worker, failed, shown, .. } = handler;
    drop(shown); // hide the window at once; a training run then saves its weights
    let finished = if app.busy == Some(Busy::Training) { worker.finish() } else { Ok(()) };
    ran?;
    if let Some(e) = failed {
        return Err(e);
    }
    finished
}

/// What to do where no window can be opened.
fn without_window(why: &str) -> String {
    let is_set = |name| std::env::var_os(name).is_some();
    let has_display = !cfg!(all(unix, not(target_os = "macos"))) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    let (what, advice) = match has_display {
        true => (format!("the window system does not answer ({why})"), "log in to a desktop"),
        false => ("this session has no display".to_string(), "start the app on a desktop, or over SSH with ssh -X"),
    };
    format!("{what}: {advice}. `longreach generate` and `longreach train` work without a window")
}

/// An open window with its painter and egui state.
struct Shown {
    window: Arc<Window>,
    painter: Painter,
    egui: egui_winit::State,
}

struct Handler {
    app: App,
    worker: Worker,
    library: Library,
    proxy: EventLoopProxy<Message>,
    context: egui::Context,
    shown: Option<Shown>,
    settings_path: Option<PathBuf>,
    document: Option<PathBuf>,
    /// Time of the next requested repaint.
    next_frame: Option<Instant>,
    /// Whether the window is to close.
    closes: bool,
    failed: Option<Error>,
}

impl Handler {
    fn new(options: &AppOptions, proxy: EventLoopProxy<Message>) -> Self {
        let settings_path = options.settings.clone().or_else(Settings::path);
        let (mut settings, complaint) = settings_path.as_deref().map(Settings::load).unwrap_or_default();
        if let Some(model) = &options.model {
            settings.model.clone_from(model);
            settings.adapter.clear();
        }
        if let Some(adapter) = &options.adapter {
            settings.adapter = adapter.display().to_string();
        }
        if let Some(device) = &options.device {
            settings.device.clone_from(device);
        }
        let context = egui::Context::default();
        views::set_up(&context);
        let repaints = proxy.clone();
        context.set_request_repaint_callback(move |info| {
            if let Some(at) = Instant::now().checked_add(info.delay) {
                let _ = repaints.send_event(Message::Repaint(at)); // fails only after the event loop has ended
            }
        });
        let events = proxy.clone();
        let tell: Tell = Arc::new(move |event| {
            let _ = events.send_event(Message::Worker(event));
        });
        let (worker, library) = (Worker::start(tell.clone()), Library::new(tell));
        let (app, effects) = App::new(settings);
        let document = options.document.clone();
        let mut handler = Self {
            app,
            worker,
            library,
            proxy,
            context,
            shown: None,
            settings_path,
            document,
            next_frame: None,
            closes: false,
            failed: None,
        };
        handler.app.notices.extend(complaint.map(Notice::error));
        handler.carry_out(effects);
        handler.on_action(Action::Models(ModelAction::Scan));
        handler
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(command) => self.worker.send(command),
                Effect::Stop => self.worker.control.stop(),
                Effect::Answer(again) => self.worker.control.answer(again),
                Effect::Pause(paused) => self.worker.control.pause(paused),
                Effect::Pick(pick) => self.pick(pick),
                Effect::Read(path) => self.read(path),
                Effect::Save(path, text) => {
                    let saved = save(&path, &text);
                    let notice = match saved {
                        Ok(path) => Notice::info(format!("Saved {}", path.display())),
                        Err(e) => Notice::error(e.to_string()),
                    };
                    self.app.notify(notice);
                }
                Effect::Models(request) => self.library.carry_out(request),
                Effect::Copy(text) => self.context.copy_text(text),
                Effect::SaveSettings => {
                    if let Some(path) = &self.settings_path
                        && let Err(e) = self.app.settings.save(path)
                    {
                        self.app.notify(Notice::error(e.to_string()));
                    }
                }
                Effect::Close => {
                    self.worker.control.stop();
                    self.closes = true;
                }
            }
        }
    }

    /// Opens the platform's file dialog on another thread, which sends the picked path later.
    fn pick(&self, pick: Pick) {
        let dialog = rfd::AsyncFileDialog::new();
        let (proxy, asked_at) = (self.proxy.clone(), Instant::now());
        let send = move |found: Option<rfd::FileHandle>| {
            let message = match found {
                Some(file) => Message::Picked(pick, file.path().to_path_buf()),
                None => match no_dialog(asked_at.elapsed()) {
                    Some(text) => Message::Notice(Notice::error(text)),
                    None => return,
                },
            };
            let _ = proxy.send_event(message);
        };
        let thread = std::thread::Builder::new().name("dialog".into());
        let spawned = match pick {
            Pick::ModelFile => {
                let asked = dialog.add_filter("GGUF", &["gguf"]).pick_file();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
            Pick::Document => {
                let asked = dialog.pick_file();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
            Pick::ModelFolder | Pick::Adapter | Pick::Data | Pick::Out => {
                let asked = dialog.pick_folder();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
        };
        if let Err(e) = spawned {
            let text = format!("the file dialog could not be opened ({e}): type the path instead");
            let _ = self.proxy.send_event(Message::Notice(Notice::error(text)));
        }
    }

    /// Reads a document on another thread.
    fn read(&self, path: PathBuf) {
        let proxy = self.proxy.clone();
        std::thread::spawn(move || {
            let _ = proxy.send_event(Message::Read(read_document(&path)));
        });
    }

    fn on_action(&mut self, action: Action) {
        let effects = self.app.on_action(action);
        self.carry_out(effects);
        self.request_frame();
    }

    fn request_frame(&self) {
        if let Some(shown) = &self.shown {
            shown.window.request_redraw();
        }
    }

    fn open(&mut self, event_loop: &ActiveEventLoop) -> Result<Shown> {
        let attributes = Window::default_attributes()
            .with_title("Longreach")
            .with_inner_size(winit::dpi::LogicalSize::new(1280.0, 800.0))
            .with_min_inner_size(winit::dpi::LogicalSize::new(720.0, 480.0))
            .with_window_icon(icon());
        #[cfg(all(unix, not(target_os = "macos")))]
        let attributes = {
            // The desktop finds the icon by the name of the desktop entry.
            let attributes = WindowAttributesExtX11::with_name(attributes, "longreach", "longreach");
            WindowAttributesExtWayland::with_name(attributes, "longreach", "longreach")
        };
        let window = event_loop.create_window(attributes).map_err(|e| Error::new(format!("opening a window: {e}")))?;
        let window = Arc::new(window);
        let painter = Painter::new(window.clone())?;
        let scale = window.scale_factor() as f32;
        let (theme, side) = (window.theme(), painter.max_texture_side());
        let root = egui::ViewportId::ROOT;
        let egui = egui_winit::State::new(self.context.clone(), root, &window, Some(scale), theme, Some(side));
        Ok(Shown { window, painter, egui })
    }

    fn paint(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        views::apply(&self.context, &self.app.settings);
        let input = shown.egui.take_egui_input(&shown.window);
        let mut actions = Vec::new();
        let app = &mut self.app;
        let output = self.context.run_ui(input, |ui| actions.extend(views::show(ui, app)));
        shown.egui.handle_platform_output(&shown.window, output.platform_output);
        let primitives = self.context.tessellate(output.shapes, output.pixels_per_point);
        if shown.painter.paint(
            views::ground(&self.context),
            &primitives,
            output.textures_delta,
            output.pixels_per_point,
        ) {
            shown.window.request_redraw();
        }
        for action in actions {
            self.on_action(action);
        }
    }
}

impl ApplicationHandler<Message> for Handler {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.shown.is_some() {
            return;
        }
        match self.open(event_loop) {
            Ok(shown) => {
                shown.window.request_redraw();
                self.shown = Some(shown);
                if let Some(path) = self.document.take() {
                    self.read(path);
                }
            }
            Err(e) => {
                self.failed = Some(e);
                event_loop.exit();
            }
        }
    }

    fn user_event(&mut self, _event_loop: &ActiveEventLoop, message: Message) {
        match message {
            Message::Worker(event) => {
                let effects = self.app.on_event(event);
                self.carry_out(effects);
                self.request_frame();
            }
            Message::Repaint(at) => {
                self.next_frame = Some(self.next_frame.map_or(at, |before| before.min(at)));
            }
            Message::Picked(Pick::Document, path) => self.read(path),
            Message::Picked(pick, path) => self.on_action(Action::Picked(pick, path)),
            Message::Read(Ok(document)) => self.on_action(Action::Document(document)),
            Message::Read(Err(e)) => {
                self.app.notify(Notice::error(e.to_string()));
                self.request_frame();
            }
            Message::Notice(notice) => {
                self.app.notify(notice);
                self.request_frame();
            }
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        if event == WindowEvent::RedrawRequested {
            // Do not pass this event to egui: it would request the next frame at once.
            return self.paint();
        }
        let Some(shown) = &mut self.shown else { return };
        if shown.egui.on_window_event(&shown.window, &event).repaint {
            shown.window.request_redraw();
        }
        match event {
            WindowEvent::CloseRequested => {
                self.on_action(Action::Close);
                if self.closes {
                    event_loop.exit();
                }
            }
            WindowEvent::Resized(size) => {
                shown.painter.resize(size);
                shown.window.request_redraw();
            }
            event => match meant(event, self.app.page) {
                Some(Meant::Read(path)) => self.read(path),
                Some(Meant::Act(action)) => self.on_action(action),
                None => {}
            },
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        match self.next_frame {
            Some(at) if at <= Instant::now() => {
                self.next_frame = None;
                self.request_frame();
                event_loop.set_control_flow(ControlFlow::Wait);
            }
            Some(at) => event_loop.set_control_flow(ControlFlow::WaitUntil(at)),
            None => event_loop.set_control_flow(ControlFlow::Wait),
        }
    }
}
