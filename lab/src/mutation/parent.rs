//! Sends mutants to worker processes and replaces workers that hang or crash.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use longreach::error::{Context, Error, Result};
use longreach::gpu::Features;

use super::given::mutants_of;
use super::mutant::Mutant;
use super::report::{Report, Verdict};
use super::worker::adapter;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The value of `--device`; `None` selects a software adapter.
    pub device: Option<String>,
    /// Only files whose path contains this.
    pub shader: String,
    /// Only cases whose name contains this.
    pub cases: String,
    /// A file of faults to plant instead of generated ones.
    pub given: Option<PathBuf>,
    /// Maximum mutants of each file, evenly spread.
    pub sample: Option<usize>,
    /// Worker processes.
    pub jobs: usize,
    /// Time that a mutant may take beyond the unchanged kernel's before it counts as hung.
    pub timeout: Duration,
    /// The hidden arguments that start this program as a worker.
    pub worker: Vec<String>,
}

/// Time for a worker to report its first limit.
const FIRST_WORD: Duration = Duration::from_secs(60);

/// Tests every selected mutant; calls `progress` with the number of finished mutants and the total.
pub fn run(options: &Options, progress: impl Fn(usize, usize) + Sync) -> Result<Report> {
    let device = adapter(options.device.as_deref())?;
    let own = device.kernel_features();
    let has = |needs: Features| needs.and(own) == needs;
    let runs = |m: &Mutant| m.path.contains(&options.shader) && has(m.needs());
    let mut selected: Vec<Mutant> = mutants_of(options.given.as_deref())?.into_iter().filter(runs).collect();
    if selected.is_empty() {
        return Err(Error::usage(format!(
            "--shader {}: no file in shaders/ has a path that contains this",
            options.shader
        )));
    }
    if let Some(most) = options.sample {
        selected = sample(selected, most);
    }
    let queue = Mutex::new(selected.iter().enumerate());
    let verdicts: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; selected.len()]);
    let work = || -> Result<()> {
        let mut worker = None;
        loop {
            let Some((i, mutant)) = lock(&queue).next() else { return Ok(()) };
            let verdict = judge(&mut worker, options, mutant)
                .with_context(|| format!("shaders/{}.wgsl:{}", mutant.path, mutant.line))?;
            let mut verdicts = lock(&verdicts);
            verdicts[i] = Some(verdict);
            progress(verdicts.iter().flatten().count(), selected.len());
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread that waits for a worker does not panic"))
    })?;
    let verdicts = verdicts.into_inner().expect("no thread panicked").into_iter().flatten();
    let complete = options.cases.is_empty() && options.given.is_none() && options.sample.is_none();
    Report::new(format!("{} ({})", device.name, device.backend), selected.into_iter().zip(verdicts).collect(), complete)
}

/// At most `most` mutants of each file, evenly spread.
fn sample(mutants: Vec<Mutant>, most: usize) -> Vec<Mutant> {
    let mut sizes: HashMap<&'static str, usize> = HashMap::new();
    mutants.iter().for_each(|m| *sizes.entry(m.path).or_default() += 1);
    let mut seen: HashMap<&'static str, usize> = HashMap::new();
    let mut kept = |m: &Mutant| {
        let (of, at) = (sizes[m.path], seen.entry(m.path).or_default());
        *at += 1;
        // The first mutant at or after each multiple of `of / most`.
        of <= most || *at * most / of > (*at - 1) * most / of
    };
    mutants.into_iter().filter(|m| kept(m)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds a lock")
}

/// Tests one mutant in the worker; starts a worker if there is none and drops one that hangs or
/// exits.
fn judge(worker: &mut Option<Worker>, options: &Options, mutant: &Mutant) -> Result<Verdict> {
    if worker.is_none() {
        *worker = Some(Worker::start(options)?);
    }
    let running = worker.as_mut().expect("started above");
    let verdict = match running.ask(mutant.index) {
        Answer::Line(line) => match line.split_once(' ').unwrap_or((line.as_str(), "")) {
            ("refused", _) => Verdict::Refused,
            ("survived", _) => Verdict::Survived,
            ("killed", why) => Verdict::Killed(why.to_string()),
            ("failed", why) => return Err(Error::new(why)),
            _ => return Err(Error::new(format!("a worker answered: {line}"))),
        },
        Answer::Hung => Verdict::Killed("the device hangs".to_string()),
        Answer::Gone => Verdict::Killed("the driver crashes".to_string()),
    };
    // A worker exits by itself after a device error.
    if running.has_ended() {
        *worker = None;
    }
    Ok(verdict)
}

/// A worker's answer.
enum Answer {
    Line(String),
    /// No answer within the announced limit; the worker is given up.
    Hung,
    /// The process exited.
    Gone,
}

struct Worker {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    ended: bool,
}

impl Worker {
    fn start(options: &Options) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program for a worker process")?;
        // Disables shader caches: a mutant is compiled once, and a warm cache would hide how long
        // that takes.
        let mut child = Command::new(program)
            .args(&options.worker)
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a worker process")?;
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(std::result::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut worker = Self { child, stdin, lines, ended: false };
        match worker.answer() {
            Answer::Line(line) if line == "ready" => Ok(worker),
            Answer::Line(line) => Err(Error::new(format!("a worker started with: {line}"))),
            Answer::Hung => Err(Error::new("a worker did not start in time")),
            Answer::Gone => Err(Error::new("a worker exited at startup; see its message above")),
        }
    }

    /// The verdict on a mutant.
    fn ask(&mut self, index: usize) -> Answer {
        if writeln!(self.stdin, "{index}").is_err() {
            self.ended = true;
            return Answer::Gone;
        }
        self.answer()
    }

    /// The next line that is not a limit.
    fn answer(&mut self) -> Answer {
        let mut limit = FIRST_WORD;
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(line) => match line.strip_prefix("limit ").and_then(|ms| ms.parse().ok()) {
                    Some(ms) => limit = Duration::from_millis(ms),
                    None => return Answer::Line(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    self.ended = true;
                    return Answer::Hung;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.ended = true;
                    return Answer::Gone;
                }
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        self.ended || !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails if the process has exited already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
