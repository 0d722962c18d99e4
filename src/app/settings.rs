//! Settings that the app saves: a JSON file in the platform's configuration folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::message::ModelChoice;
use super::place::Place;
use super::tune::TuneChoices;
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use crate::small_file::read_text;

/// Most folders of runs that the app remembers.
const MOST_FOLDERS: usize = 200;

/// Colour theme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

/// The settings that the app saves between sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub theme: Theme,
    /// UI scale; 1 is the scale of the screen.
    pub zoom: f32,
    /// Where the window was when it was closed.
    pub window: Option<Place>,
    /// Id of the conversation that was open; empty for a new one.
    pub conversation: String,
    pub model: String,
    pub adapter: String,
    pub device: String,
    pub sink: usize,
    pub lag: usize,
    /// Compression factor; 1 means dense.
    pub factor: u32,
    /// The model and the adapter for which the compression was chosen.
    pub cache_for: Option<(String, String)>,
    pub max_tokens: usize,
    pub data: String,
    pub out: String,
    pub tune: TuneChoices,
    /// The folders with the output folders of runs, the newest first.
    pub runs: Vec<String>,
    /// Models that were opened, newest first: folders, GGUF files and hub ids.
    pub models: Vec<String>,
    /// Adapters that were opened, newest first.
    pub adapters: Vec<String>,
    /// Models that the user removed from the list.
    pub hidden_models: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: Theme::System,
            zoom: 1.0,
            window: None,
            conversation: String::new(),
            model: String::new(),
            adapter: String::new(),
            device: "auto".into(),
            sink: 16,
            lag: 128,
            factor: 1,
            cache_for: None,
            max_tokens: 1024,
            data: String::new(),
            out: String::new(),
            tune: TuneChoices::default(),
            runs: Vec::new(),
            models: vec![],
            adapters: vec![],
            hidden_models: vec![],
        }
    }
}

impl Settings {
    /// Loads the settings from a file. If the file is missing or unreadable, returns the defaults;
    /// for an unreadable file, also the reason.
    pub fn load(path: &Path) -> (Self, Option<String>) {
        if !path.exists() {
            return (Self::default(), None);
        }
        let read = || -> Result<Self> { Ok(serde_json::from_str(&read_text(path)?)?) };
        match read() {
            Ok(settings) => (settings.usable(), None),
            Err(e) => {
                let aside = path.with_extension("json.bad");
                let kept = match std::fs::rename(path, &aside) {
                    Ok(()) => format!(" and keeps the file as {}", aside.display()),
                    Err(_) => String::new(),
                };
                let why = format!("{} could not be read: {e}. The app uses the default settings{kept}", path.display());
                (Self::default(), Some(why))
            }
        }
    }

    /// Names a model, its adapter and its device.
    pub fn name(&mut self, model: &str, adapter: Option<&Path>, device: &str) {
        self.model = model.to_string();
        self.adapter = adapter.map_or_else(String::new, |path| path.display().to_string());
        self.device = device.to_string();
    }

    /// Enlarges or shrinks the window's content by tenths, or returns to the scale of the screen at 0.
    pub fn zoom_by(&mut self, tenths: i32) {
        let now = if tenths == 0 { 10.0 } else { (self.zoom * 10.0).round() + tenths as f32 };
        self.zoom = (now / 10.0).clamp(0.5, 3.0);
    }

    /// Remembers the folder of a run, to find the run again.
    pub fn remember_run(&mut self, out: &Path) {
        let folder = out.parent().map_or_else(String::new, |parent| parent.display().to_string());
        move_to_front(&mut self.runs, &folder, MOST_FOLDERS);
    }

    /// Takes the settings of LRSA that a model or a run was trained with.
    pub fn take_lrsa(&mut self, sink: usize, lag: usize, keep: f64) {
        (self.sink, self.lag) = (sink, lag);
        self.factor = (1.0 / keep).round().clamp(1.0, 64.0) as u32;
    }

    /// Notes that a model is open now. Returns whether the compression was chosen for another one.
    pub fn opens_for(&mut self, choice: &ModelChoice) -> bool {
        let adapter = choice.adapter.as_ref().map_or_else(String::new, |path| path.display().to_string());
        let opened = Some((choice.model.clone(), adapter));
        let is_other = self.cache_for != opened;
        self.cache_for = opened;
        is_other
    }

    /// Takes the attention that a model was trained with, S, L and r of LRSA: the dense cache if it was
    /// not trained with compression.
    pub fn take_recorded(&mut self, recorded: Option<(usize, usize, f64)>) {
        match recorded {
            Some((sink, lag, keep)) => self.take_lrsa(sink, lag, keep),
            None => self.factor = 1,
        }
    }

    /// Clamps values that would make the window unusable, such as an extreme zoom.
    fn usable(mut self) -> Self {
        self.zoom = if self.zoom.is_finite() { self.zoom.clamp(0.5, 3.0) } else { 1.0 };
        (self.lag, self.factor) = (self.lag.clamp(8, 4096), self.factor.clamp(1, 64));
        (self.sink, self.max_tokens) = (self.sink.min(4096), self.max_tokens.clamp(1, 8192));
        self
    }

    /// Writes the settings to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        // People link their settings to a folder of their own, and the link should stay.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        write_file(&path, text).context("saving the settings")
    }

    /// Path of the settings file in the platform's configuration folder, if there is one.
    pub fn path() -> Option<PathBuf> {
        platform_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("settings.json"))
    }
}

/// The app's folder among those that the platform has for programs. On Linux the environment variable
/// `xdg` names their folder, which is otherwise `below` the home folder.
pub fn platform_folder(xdg: &str, below: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let folder = match std::env::consts::OS {
        "windows" => var("APPDATA"),
        "macos" => var("HOME").map(|home| home.join("Library/Application Support")),
        _ => var(xdg).or_else(|| var("HOME").map(|home| home.join(below))),
    };
    folder.map(|folder| folder.join("longreach"))
}

/// Moves a name to the front of a list of at most `most`, or puts it there. Returns whether that
/// changed the list.
pub fn move_to_front(names: &mut Vec<String>, name: &str, most: usize) -> bool {
    if names.first().is_some_and(|first| first == name) {
        return false;
    }
    names.retain(|other| other != name);
    names.insert(0, name.to_string());
    names.truncate(most);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_and_bad_files_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/settings.json");
        assert_eq!(Settings::load(&path), (Settings::default(), None));
        let mine = Settings { zoom: 1.5, factor: 8, model: "m".into(), ..Settings::default() };
        mine.save(&path).unwrap();
        assert_eq!(Settings::load(&path), (mine, None));
        std::fs::write(&path, r#"{"zoom": 100, "lag": 0, "unknown": 1}"#).unwrap();
        let (settings, why) = Settings::load(&path);
        assert_eq!((settings.zoom, settings.lag, why), (3.0, 8, None));
        std::fs::write(&path, "{").unwrap();
        assert!(Settings::load(&path).1.unwrap().contains("settings.json"));
        let aside = std::fs::read_to_string(dir.path().join("a/settings.json.bad"));
        assert_eq!((aside.unwrap().as_str(), path.exists()), ("{", false), "it can be mended");
    }
    #[test]
    fn folders_of_runs_are_remembered_once_and_the_newest_first() {
        let mut settings = Settings::default();
        for out in ["/a/x", "/b/y", "/a/z"] {
            settings.remember_run(Path::new(out));
        }
        assert_eq!(settings.runs, ["/a", "/b"]);
        (0..300).for_each(|i| settings.remember_run(Path::new(&format!("/{i}/out"))));
        assert_eq!((settings.runs.len(), settings.runs[0].as_str()), (200, "/299"));
    }
}
