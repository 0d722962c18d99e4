//! The winit event loop: passes events to egui and the state, and carries out the state's effects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui_winit::accesskit_winit;
use winit::application::ApplicationHandler;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
#[cfg(all(unix, not(target_os = "macos")))]
use winit::platform::{wayland::WindowAttributesExtWayland, x11::WindowAttributesExtX11};
use winit::window::{Window, WindowId};

use crate::app::conversations::{Store, Stored, folder};
use crate::app::desktop::{Meant, fresh_id, icon, meant};
use crate::app::documents::Document;
use crate::app::library::Library;
use crate::app::message::Event;
use crate::app::models::ModelAction;
use crate::app::painter::Painter;
use crate::app::place::{Place, placed};
use crate::app::settings::Settings;
use crate::app::state::{Action, App, Effect, Notice, Pick};
use crate::app::views;
use crate::app::worker::Worker;
use crate::app::worker_site::Tell;
use crate::error::{Error, Result};

/// Time between two saves of a conversation that changes all the time. What a killed program loses is
/// no older.
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Messages to the window from other threads.
#[derive(Debug)]
pub(super) enum Message {
    Worker(Event),
    Repaint(Instant),
    Picked(Pick, PathBuf),
    /// A document, read for the conversation with this serial number.
    Read(u64, Result<Document>),
    Notice(Notice),
    Stored(Stored),
    Accessibility(accesskit_winit::Event),
}

impl From<accesskit_winit::Event> for Message {
    fn from(event: accesskit_winit::Event) -> Self {
        Self::Accessibility(event)
    }
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
    /// Documents to open at start.
    pub documents: Vec<PathBuf>,
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
    handler.finish(); // nothing is left to do unless the event loop failed
    ran?;
    handler.failed.map_or(Ok(()), Err)
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

pub(super) struct Handler {
    pub(super) app: App,
    pub(super) worker: Worker,
    /// `None` where the platform names no folder for data.
    pub(super) store: Option<Store>,
    /// When the conversation was last looked at for changes, and whether anything has happened since.
    pub(super) kept_at: Instant,
    pub(super) may_have_changed: bool,
    pub(super) library: Library,
    pub(super) proxy: EventLoopProxy<Message>,
    pub(super) context: egui::Context,
    shown: Option<Shown>,
    pub(super) settings_path: Option<PathBuf>,
    documents: Vec<PathBuf>,
    /// Time of the next requested repaint.
    next_frame: Option<Instant>,
    /// Zoom of the last frame, and the last move of the pointer.
    zoom: f32,
    pointer: Option<WindowEvent>,
    /// Whether the window is to close.
    pub(super) closes: bool,
    failed: Option<Error>,
    has_finished: bool,
}

impl Handler {
    /// Saves what is open, and waits for a job that has to save its result. Does so once.
    fn finish(&mut self) {
        if std::mem::replace(&mut self.has_finished, true) {
            return;
        }
        self.note_place();
        let kept = self.app.keep();
        self.carry_out([kept, vec![Effect::SaveSettings]].concat());
        self.shown = None; // hides the window
        let stored = self.store.take().map_or(Ok(()), Store::finish);
        let worked = if self.app.must_finish() { self.worker.finish() } else { Ok(()) };
        if self.failed.is_none() {
            self.failed = stored.and(worked).err();
        }
    }

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
        views::add_system_fonts(&context);
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
        let stored = proxy.clone();
        let tell = Arc::new(move |event| {
            let _ = stored.send_event(Message::Stored(event));
        });
        let store = folder(options.settings.as_deref()).map(|folder| Store::start(folder, tell));
        if !options.documents.is_empty() || options.model.is_some() || options.adapter.is_some() {
            settings.conversation.clear(); // a document or another model begins a new one
        }
        let (app, effects) = App::new(settings);
        let documents = options.documents.clone();
        let mut handler = Self {
            app,
            worker,
            store,
            kept_at: Instant::now(),
            may_have_changed: false,
            library,
            proxy,
            context,
            shown: None,
            settings_path,
            documents,
            next_frame: None,
            zoom: 1.0,
            pointer: None,
            closes: false,
            failed: None,
            has_finished: false,
        };
        handler.app.conversations.fresh_id = fresh_id();
        handler.app.notices.extend(complaint.map(Notice::error));
        handler.carry_out(effects);
        handler.on_action(Action::Models(ModelAction::Scan));
        handler
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
        let attributes =
            Window::default_attributes().with_title("Longreach").with_window_icon(icon()).with_visible(false); // a screen reader has to be connected first
        #[cfg(all(unix, not(target_os = "macos")))]
        {
            use winit::platform::wayland::ActiveEventLoopExtWayland;
            self.app.can_drop = !event_loop.is_wayland();
        }
        let screens = event_loop.available_monitors();
        let attributes = placed(attributes, self.app.settings.window, event_loop.primary_monitor(), screens);
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
        let mut egui = egui_winit::State::new(self.context.clone(), root, &window, Some(scale), theme, Some(side));
        egui.init_accesskit(event_loop, &window, self.proxy.clone());
        window.set_visible(true);
        Ok(Shown { window, painter, egui })
    }

    /// Passes what a screen reader asks for to egui.
    fn on_accessibility(&mut self, event: accesskit_winit::WindowEvent) {
        let Some(shown) = &mut self.shown else { return };
        match event {
            accesskit_winit::WindowEvent::InitialTreeRequested => self.context.enable_accesskit(),
            accesskit_winit::WindowEvent::ActionRequested(request) => shown.egui.on_accesskit_action_request(request),
            accesskit_winit::WindowEvent::AccessibilityDeactivated => self.context.disable_accesskit(),
        }
        self.request_frame();
    }

    /// Remembers where the window is, and what the pages hold.
    fn note_place(&mut self) {
        self.app.settings.tune = self.app.tune.choices();
        self.app.settings.data.clone_from(&self.app.tune.data);
        self.app.settings.out.clone_from(&self.app.tune.out);
        if let Some(now) = self.shown.as_ref().and_then(|shown| Place::of(&shown.window)) {
            self.app.settings.window = Some(Place::updated(self.app.settings.window, now));
        }
    }

    fn paint(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        views::apply(&self.context, &self.app.settings);
        // The pointer is elsewhere in points once the zoom has changed, although it has not moved.
        let zoom = self.context.zoom_factor();
        if std::mem::replace(&mut self.zoom, zoom) != zoom
            && let Some(moved) = &self.pointer
        {
            let _ = shown.egui.on_window_event(&shown.window, moved);
        }
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
        ) || self.context.zoom_factor() != zoom
        {
            shown.window.request_redraw();
        }
        for action in actions {
            self.on_action(action);
        }
        self.may_have_changed = true; // fields write to the state
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
                let documents = std::mem::take(&mut self.documents);
                self.read(documents);
            }
            Err(e) => {
                self.failed = Some(e);
                event_loop.exit();
            }
        }
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, message: Message) {
        self.may_have_changed = true;
        match message {
            Message::Worker(event) => {
                let effects = self.app.on_event(event);
                self.carry_out(effects);
                self.request_frame();
            }
            Message::Repaint(at) => {
                self.next_frame = Some(self.next_frame.map_or(at, |before| before.min(at)));
            }
            Message::Picked(Pick::Document, path) => self.read(vec![path]),
            Message::Picked(pick, path) => self.on_action(Action::Picked(pick, path)),
            Message::Read(serial, Ok(document)) if serial != self.app.conversations.serial => {
                let name = document.name;
                let text = format!("{name} was read for the chat that was open before: add it there again.");
                self.app.notify(Notice::info(text));
                self.request_frame();
            }
            Message::Read(_, Ok(document)) => self.on_action(Action::Document(document)),
            Message::Read(_, Err(e)) => {
                self.app.not_read(&e);
                self.request_frame();
            }
            Message::Stored(stored) => {
                let effects = self.app.on_stored(stored);
                self.carry_out(effects);
                self.request_frame();
            }
            Message::Accessibility(event) => self.on_accessibility(event.window_event),
            Message::Notice(notice) => {
                self.app.notify(notice);
                self.request_frame();
            }
        }
        if self.closes {
            event_loop.exit();
        }
    }

    fn exiting(&mut self, _event_loop: &ActiveEventLoop) {
        // On macOS, Quit ends the process after this call.
        self.finish();
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        if event == WindowEvent::RedrawRequested {
            // Do not pass this event to egui: it would request the next frame at once.
            return self.paint();
        }
        let Some(shown) = &mut self.shown else { return };
        if matches!(event, WindowEvent::CursorMoved { .. }) {
            self.pointer = Some(event.clone());
        }
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
                Some(Meant::Read(path)) => self.read(vec![path]),
                Some(Meant::Act(action)) => self.on_action(action),
                None => {}
            },
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        self.keep(); // also while the window is hidden and paints nothing
        if self.next_frame.take_if(|at| *at <= Instant::now()).is_some() {
            self.request_frame();
        }
        // The next look for changes paints nothing.
        let look = self.may_have_changed.then(|| self.kept_at + KEEP_EVERY);
        event_loop.set_control_flow(match self.next_frame.into_iter().chain(look).min() {
            Some(at) => ControlFlow::WaitUntil(at),
            None => ControlFlow::Wait,
        });
    }
}
