//! Messages between the window and the worker: commands, events and the flags that stop or pause a
//! job.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::checked_run::CheckedRun;
use super::data_counts::DataCounts;
use super::models::ModelEvent;
use super::turns::Turn;
use crate::attention::Attention;
use crate::checkpoint::generation_config::Wished;
use crate::eval::KeptMap;
use crate::export::{ExportJob, Exported};
use crate::generate::Answer;
use crate::kernels::sample::Sampling;
use crate::train::{EvalLine, PastRun, StepLine, Summary, TrainJob};

/// A model, its adapter and the device that runs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelChoice {
    /// Folder, GGUF file or Hugging Face repo id; empty for the bundled model.
    pub model: String,
    pub adapter: Option<PathBuf>,
    /// Same values as `--device`.
    pub device: String,
}

/// A question, with all that the worker needs to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Instructions that the model reads first; may be empty.
    pub system: String,
    /// Text that precedes the first question; may be empty.
    pub document: Arc<str>,
    /// All turns. The answer of the last one is empty, or the beginning that the model continues.
    pub turns: Vec<Turn>,
    pub attention: Attention,
    pub max_tokens: usize,
    /// Sampling values that the user chose. The others are those that the model recommends.
    pub sampling: Wished,
    /// Seed of the draws.
    pub seed: u64,
}

impl Question {
    /// The same with another last question, and no answer to it.
    pub fn asking(&self, question: &str) -> Self {
        let mut other = self.clone();
        if let Some(last) = other.turns.last_mut() {
            *last = Turn::asked(question);
        }
        other
    }
}

/// A count of the tokens of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCount {
    /// The number of the model, counted by how often one has opened.
    pub serial: u64,
    pub text: Arc<str>,
    /// `None` before the count, and if the model has no tokenizer for it.
    pub n_tokens: Option<usize>,
}

/// A command from the window to the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    ListAdapters,
    Open(ModelChoice),
    Ask(Question),
    /// Find the tokens that the cache keeps of a conversation with its last answer.
    Kept(Question),
    /// Say what a training run will take.
    Forecast {
        job: Box<TrainJob>,
        device: String,
    },
    Train {
        job: Box<TrainJob>,
        device: String,
        /// Whether the run may replace an earlier result in the same folder.
        replace: bool,
    },
    Export {
        job: Box<ExportJob>,
        device: String,
        /// Whether it may replace a file of the same name.
        replace: bool,
    },
    Check {
        device: String,
    },
}

/// Properties of the open model, for display.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    pub name: String,
    pub adapter: Option<String>,
    pub device: String,
    pub n_layers: usize,
    pub n_kv_heads: usize,
    pub max_positions: usize,
    pub has_chat_template: bool,
    /// Bytes of one cache entry over all layers and heads.
    pub entry_bytes: u64,
    /// Tokens of the sliding window of each layer that has one: such layers hold no more, and are
    /// not compressed.
    pub windows: Vec<usize>,
    /// The sampling that the model recommends.
    pub recommended: Option<Sampling>,
    /// S, L and r that the adapter was trained with.
    pub recorded: Option<(usize, usize, f64)>,
}

/// A graphics adapter of this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterLine {
    pub index: usize,
    pub name: String,
    pub backend: String,
    pub device_type: String,
    pub driver: String,
    pub features: Vec<String>,
    pub max_binding_mib: u64,
    /// Bytes of its own memory, where the backend tells.
    pub memory_bytes: Option<u64>,
}

/// One row of a device check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckLine {
    pub kernel: String,
    pub case: String,
    pub passed: bool,
    pub relative_error: f64,
    pub reason: String,
}

/// An event from the worker to the window.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Adapters(Vec<AdapterLine>),
    Opened(ModelCard),
    /// The model is not on this machine, and would have to be downloaded.
    NotDownloaded(ModelChoice),
    /// The worker has closed the open model, because the next one needs its memory.
    Closed,
    /// Prefill progress in prompt tokens.
    Fed {
        done: usize,
        total: usize,
    },
    /// Newly generated text.
    Said(String),
    /// Length of the conversation in tokens, after the text just generated.
    Grown(usize),
    /// Tokens per second of the answer that now ends.
    Speed(f64),
    Answered(Answer),
    /// So many tokens have been looked at for the kept ones.
    KeptSoFar {
        done: usize,
        total: usize,
    },
    Kept(Box<KeptMap>),
    /// The user stopped the opening of a model or the search for kept tokens.
    Stopped,
    Counted(TokenCount),
    /// The examples of training data are counted.
    DataCounted(DataCounts),
    /// What a training run will take.
    Forecast(Box<CheckedRun>),
    /// The output folder holds an earlier result, so the run did not start.
    WouldReplace(PathBuf),
    /// The folder holds a run of the same settings that has not reached its end.
    WouldContinue(PathBuf),
    /// A run starts. The worker has closed the chat's model to free its memory.
    TrainBegan(Box<TrainJob>),
    TrainStarted {
        steps: u64,
        examples: usize,
    },
    TrainStep(StepLine),
    TrainEvaluated(EvalLine),
    TrainSaved(u64),
    /// The final save of a run failed for this reason. The run waits for [`Control::answer`].
    SaveFailed(String),
    Note(String),
    Trained(Summary),
    /// The runs on disk.
    Runs(Vec<PastRun>),
    /// There is a file of the name that an export would write, so it did not begin.
    ExportExists(PathBuf),
    /// So many tensors of an export are written.
    Exporting {
        done: usize,
        total: usize,
    },
    ExportNote(String),
    Exported {
        out: PathBuf,
        exported: Exported,
    },
    /// The user stopped an export, which wrote nothing.
    ExportStopped,
    Models(ModelEvent),
    Checked(Box<CheckLine>),
    CheckDone {
        passed: usize,
        failed: usize,
        /// False if the user stopped the check.
        is_complete: bool,
        report: String,
    },
    /// A command failed. Earlier results stay.
    Failed(String),
    /// The engine failed and starts again.
    Restarted(String),
}

/// Flags that a busy worker polls.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    closing: AtomicBool,
    paused: Mutex<bool>,
    resumed: Condvar,
    /// The user's answer: whether to try again.
    again: Mutex<Option<bool>>,
    answered: Condvar,
    /// The first failure after the window was closed.
    fault: Mutex<Option<String>>,
}

/// Locks a mutex. Ignores poisoning, because a panic cannot leave a flag half written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Control {
    /// Stops the current job as soon as possible.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.pause(false);
    }

    /// Clears an earlier stop before a new command.
    pub fn begin(&self) {
        self.stop.store(false, Ordering::Release);
        self.pause(false);
        *locked(&self.again) = None;
    }

    /// Pauses training before the next recording of a step, or resumes it.
    pub fn pause(&self, paused: bool) {
        *locked(&self.paused) = paused;
        self.resumed.notify_all();
    }

    /// Answers the worker's question whether to try again.
    pub fn answer(&self, again: bool) {
        *locked(&self.again) = Some(again);
        self.answered.notify_all();
    }

    /// Waits until the user says whether to try again. Closing the window means no.
    pub fn wait_for_answer(&self) -> bool {
        let mut again = locked(&self.again);
        loop {
            if let Some(answer) = again.take() {
                return answer;
            }
            if self.closing.load(Ordering::Acquire) {
                return false;
            }
            again = self.answered.wait(again).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Tells the worker that the window is closed: stops the job and any wait for an answer.
    pub fn close(&self) {
        {
            // The lock keeps the flag from changing between the waiter's test of it and its wait.
            let _again = locked(&self.again);
            self.closing.store(true, Ordering::Release);
        }
        self.answered.notify_all();
        self.stop();
    }

    /// Records a failure after the window was closed, when no window can show it.
    pub fn note_fault(&self, why: &str) {
        if self.closing.load(Ordering::Acquire) {
            locked(&self.fault).get_or_insert_with(|| why.to_string());
        }
    }

    /// Takes the failure that was recorded after the window was closed.
    pub fn fault(&self) -> Option<String> {
        locked(&self.fault).take()
    }

    /// Whether the job should stop. Does not wait.
    pub fn is_ending(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether the job should stop. Waits while the job is paused.
    pub fn is_stopped(&self) -> bool {
        let mut paused = locked(&self.paused);
        while *paused && !self.stop.load(Ordering::Acquire) {
            paused = self.resumed.wait(paused).unwrap_or_else(|e| e.into_inner());
        }
        self.stop.load(Ordering::Acquire)
    }
}
