//! State of an export: what to write and where, and what came of it.

use std::path::{Path, PathBuf};

use super::labels::name_of;
use crate::export::{ExportFormat, ExportJob, Exported, WeightType};
use crate::train::{Method, PastRun};

/// How far an export is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ExportState {
    #[default]
    Idle,
    /// So many tensors of so many are written.
    Writing(usize, usize),
    /// There is a file of that name.
    Asks(PathBuf),
    Stopped,
    Failed(String),
    Done(PathBuf, Exported),
}

/// State of the export of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Exporting {
    pub to: ExportFormat,
    /// Type of the weights; `None` for the usual one of the format.
    pub kind: Option<WeightType>,
    /// Whether to export the checkpoint with the lowest validation loss rather than the last one.
    pub is_best: bool,
    /// The file or folder; empty for the suggested one.
    pub out: String,
    /// The run of the state below.
    pub run: PathBuf,
    pub state: ExportState,
    pub notes: Vec<String>,
}

impl Default for Exporting {
    fn default() -> Self {
        Self {
            to: ExportFormat::Gguf,
            kind: None,
            is_best: false,
            out: String::new(),
            run: PathBuf::new(),
            state: ExportState::default(),
            notes: vec![],
        }
    }
}

impl Exporting {
    /// The formats of a run, with their names.
    pub fn formats(method: Method) -> Vec<(ExportFormat, &'static str)> {
        let all = [
            (ExportFormat::Gguf, "GGUF (llama.cpp)"),
            (ExportFormat::Hf, "Hugging Face"),
            (ExportFormat::Mlx, "MLX"),
            (ExportFormat::AdapterGguf, "Adapter as GGUF"),
        ];
        all.into_iter().filter(|(to, _)| *to != ExportFormat::AdapterGguf || method == Method::Lora).collect()
    }

    /// The types of the weights that a format holds.
    pub fn kinds(to: ExportFormat) -> Vec<WeightType> {
        use WeightType::{Bf16, F16, F32, Q4KM, Q5KM, Q6K, Q8_0};
        let all = [F32, F16, Bf16, Q8_0, Q6K, Q5KM, Q4KM];
        all.into_iter().filter(|kind| to == ExportFormat::Gguf || kind.plain().is_some()).collect()
    }

    /// Where a run is exported to unless the user names another place: beside its folder.
    pub fn suggested(&self, run: &PastRun) -> PathBuf {
        let name = name_of(&run.job.out);
        let kind = self.kind.map(|kind| format!("-{}", kind.name())).unwrap_or_default();
        let best = if self.is_best { "-best" } else { "" };
        run.job.out.with_file_name(match self.to {
            ExportFormat::Gguf => format!("{name}{best}{kind}.gguf"),
            ExportFormat::AdapterGguf => format!("{name}{best}{kind}-adapter.gguf"),
            to => format!("{name}{best}{kind}-{}", to.name()),
        })
    }

    /// The export of a run.
    pub fn job(&self, run: &PastRun) -> ExportJob {
        let best = run.best_checkpoint.as_deref().filter(|_| self.is_best);
        let folder = best.unwrap_or(&run.job.out);
        let (model, adapter) = match run.job.method {
            Method::Lora => (run.job.model.clone(), Some(folder.to_path_buf())),
            Method::Full => (folder.display().to_string(), None),
        };
        let out = match self.out.trim() {
            "" => self.suggested(run),
            out => PathBuf::from(out),
        };
        let quantise = self.kind.filter(|kind| Self::kinds(self.to).contains(kind));
        ExportJob { model, adapter, rope_scaling: None, to: self.to, quantise, out, text: None }
    }

    /// The state of the export of a run.
    pub fn state_of(&self, run: &Path) -> &ExportState {
        if self.run == run { &self.state } else { &ExportState::Idle }
    }

    /// Forgets what came of the last export of a run, before another one.
    pub fn begin(&mut self, run: &Path) {
        self.run = run.to_path_buf();
        self.notes.clear();
        self.state = ExportState::Writing(0, 0);
    }
}
