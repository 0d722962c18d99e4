//! What window and worker say to each other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::attention::Attention;
use crate::eval::KeptMap;
use crate::generate::Answer;
use crate::train::{EvalLine, StepLine, Summary, TrainJob};

/// Which model, with which adapter, on which device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelChoice {
    /// Folder, GGUF file or hub id; empty for the bundled model.
    pub model: String,
    pub adapter: Option<PathBuf>,
    /// As `--device`.
    pub device: String,
}

/// A turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub question: String,
    pub answer: String,
    /// Whether the answer was ended before it was complete.
    pub is_cut: bool,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Read before the first question; may be empty.
    pub document: Arc<str>,
    /// All turns; the last one's answer is empty.
    pub turns: Vec<Turn>,
    pub attention: Attention,
    pub max_tokens: usize,
    /// 0 for the likeliest answer, else of one that is drawn.
    pub seed: u64,
}

/// What the window asks of the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    ListAdapters,
    Open(ModelChoice),
    Ask(Question),
    /// Which tokens of the conversation the cache kept.
    Kept,
    /// The first examples of training data, as the model reads them.
    Preview {
        choice: ModelChoice,
        data: PathBuf,
    },
    /// Bytes that a run would take.
    Estimate {
        job: Box<TrainJob>,
        device: String,
    },
    Train {
        job: Box<TrainJob>,
        device: String,
        /// Whether the result of an earlier run in the same folder may be replaced.
        replace: bool,
    },
    Check {
        device: String,
    },
}

/// An open model, for who looks at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    pub name: String,
    pub adapter: Option<String>,
    pub device: String,
    pub n_layers: usize,
    pub n_kv_heads: usize,
    pub max_positions: usize,
    pub has_chat_template: bool,
    /// Bytes of one cache entry, all layers and heads.
    pub entry_bytes: u64,
    /// Tokens of the sliding window of each layer that has one: such layers hold no more, and are not compressed.
    pub windows: Vec<usize>,
    /// S, L and r that the adapter was trained with.
    pub recorded: Option<(usize, usize, f64)>,
}

/// An adapter of this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterLine {
    pub index: usize,
    pub name: String,
    pub backend: String,
    pub device_type: String,
    pub driver: String,
    pub features: Vec<String>,
    pub max_binding_mib: u64,
}

/// An example of training data: its pieces, and whether each is learnt.
pub type PreviewExample = Vec<(String, bool)>;

/// A finding of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckLine {
    pub kernel: String,
    pub case: String,
    pub passed: bool,
    pub relative_error: f64,
    pub reason: String,
}

/// What the worker tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Adapters(Vec<AdapterLine>),
    Opened(ModelCard),
    /// Tokens of the prompt read so far, of how many.
    Fed {
        done: usize,
        total: usize,
    },
    Said(String),
    /// With what was just said the conversation has so many tokens.
    Grown(usize),
    Answered(Answer),
    Kept(Box<KeptMap>),
    Preview(Vec<PreviewExample>),
    Estimated(u64),
    /// The folder of a run holds the result of an earlier one; nothing was begun.
    WouldReplace(PathBuf),
    /// A run begins; the chat's model is closed to leave it the memory.
    TrainBegan(Box<TrainJob>),
    TrainStarted {
        steps: u64,
        examples: usize,
    },
    TrainStep(StepLine),
    TrainEvaluated(EvalLine),
    TrainSaved(u64),
    /// The end of a run could not be saved, for this reason; it waits for [`Control::answer`].
    SaveFailed(String),
    Note(String),
    Trained(Summary),
    Checked(Box<CheckLine>),
    CheckDone {
        passed: usize,
        failed: usize,
        /// Not where it was stopped.
        is_complete: bool,
        report: String,
    },
    /// A command failed; what was done before stays.
    Failed(String),
    /// The worker is gone and has been started anew.
    Restarted(String),
}

/// Flags that a busy worker looks at.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    closing: AtomicBool,
    paused: Mutex<bool>,
    resumed: Condvar,
    /// Whether to try again, once a person said so.
    again: Mutex<Option<bool>>,
    answered: Condvar,
    /// What failed after the window was closed.
    fault: Mutex<Option<String>>,
}

/// What a mutex guards; flags stay whole even where a thread panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Control {
    /// Ends what is running, as soon as it can be ended.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.pause(false);
    }

    /// Forgets an earlier stop: something new begins.
    pub fn begin(&self) {
        self.stop.store(false, Ordering::Release);
        self.pause(false);
        *locked(&self.again) = None;
    }

    /// Holds training between two steps, or lets it go on.
    pub fn pause(&self, paused: bool) {
        *locked(&self.paused) = paused;
        self.resumed.notify_all();
    }

    /// Answers a question of the worker: whether to try again.
    pub fn answer(&self, again: bool) {
        *locked(&self.again) = Some(again);
        self.answered.notify_all();
    }

    /// Waits until a person says whether to try again. Closing the window means no.
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

    /// The window is closed: whoever waits for a person need not.
    pub fn close(&self) {
        {
            // Not between a look at the flag and the wait after it.
            let _again = locked(&self.again);
            self.closing.store(true, Ordering::Release);
        }
        self.answered.notify_all();
        self.stop();
    }

    /// Keeps what failed where there is no window any more that it could be told.
    pub fn note_fault(&self, why: &str) {
        if self.closing.load(Ordering::Acquire) {
            locked(&self.fault).get_or_insert_with(|| why.to_string());
        }
    }

    /// What failed after the window was closed.
    pub fn fault(&self) -> Option<String> {
        locked(&self.fault).take()
    }

    /// Whether to end, without waiting.
    pub fn is_ending(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether to end; waits while paused.
    pub fn is_stopped(&self) -> bool {
        let mut paused = locked(&self.paused);
        while *paused && !self.stop.load(Ordering::Acquire) {
            paused = self.resumed.wait(paused).unwrap_or_else(|e| e.into_inner());
        }
        self.stop.load(Ordering::Acquire)
    }
}
