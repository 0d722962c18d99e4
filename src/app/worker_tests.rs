//! Tests of the worker with the real engine, on the CPU with the bundled model.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::message::{Command, Control, Event, ModelChoice, Question, TokenCount};
use super::turns::Turn;
use super::worker::Worker;
use super::worker_site::Open;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::generation_config::Wished;
use crate::checkpoint::record::AttentionRecord;
use crate::eval::KeptMap;
use crate::generate::StoppedBy;
use crate::gpu::{CpuExecutor, open_device};
use crate::train::TrainJob;

pub(super) struct Window {
    pub worker: Worker,
    events: Receiver<Event>,
}

impl Window {
    pub fn new() -> Self {
        Self::with(|_| {}, Arc::new(open_device))
    }

    /// A window that calls `look` on each event before it receives it, with a worker that opens
    /// devices with `open`.
    fn with(look: impl Fn(&Event) + Send + Sync + 'static, open: Open) -> Self {
        let (sender, events) = channel();
        let sender = std::sync::Mutex::new(sender);
        let tell = move |event| {
            look(&event);
            let _ = sender.lock().unwrap().send(event);
        };
        Self { worker: Worker::start_with(Arc::new(tell), open), events }
    }

    /// The events up to and including the first one for which `ends` is true.
    pub fn until(&mut self, ends: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut heard = Vec::new();
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|e| panic!("{e}: {heard:?}"));
            let is_last = ends(&event);
            heard.push(event);
            if is_last {
                return heard;
            }
        }
    }

    pub fn open(&mut self) {
        self.worker.send(Command::Open(ModelChoice { device: "cpu".into(), ..ModelChoice::default() }));
        let heard = self.until(|e| matches!(e, Event::Opened(_)));
        assert_eq!(heard.len(), 1);
    }
}

fn question(text: &str, max_tokens: usize) -> Question {
    Question {
        system: String::new(),
        document: Arc::from("Once upon a time there was a girl called Lily who lived by the sea."),
        turns: vec![Turn::asked(text)],
        attention: Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap()),
        max_tokens,
        sampling: Wished { temperature: Some(0.0), ..Wished::default() },
        seed: 0,
    }
}

pub(super) fn train(job: &TrainJob, replace: bool) -> Command {
    Command::Train { job: Box::new(job.clone()), device: "cpu".into(), replace }
}

/// Creates a folder with training data and describes a long run with it.
pub(super) fn run_in(dir: &Path) -> TrainJob {
    let (data, out) = (dir.join("data"), dir.join("out"));
    std::fs::create_dir(&data).unwrap();
    let line = r#"{"prompt": "Once upon a time", "completion": " there was a whale."}"#;
    std::fs::write(data.join("train.jsonl"), [line; 4].join("\n")).unwrap();
    let attention = Some(AttentionRecord::Dense);
    TrainJob { data, out, steps: Some(500), rank: Some(2), save_every: 2, attention, ..TrainJob::default() }
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Answered(_) | Event::Failed(_) | Event::Restarted(_))
}

#[test]
fn it_answers_says_what_was_kept_and_stops_when_asked() {
    let mut window = Window::new();
    let Window { worker, .. } = &mut window;
    worker.send(Command::Ask(question("She", 5)));
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("no model")));
    window.open();
    window.worker.send(Command::Ask(question("She liked to", 40)));
    let heard = window.until(is_end);
    let said: String = heard.iter().map(|e| if let Event::Said(t) = e { t.as_str() } else { "" }).collect();
    let Some(Event::Answered(answer)) = heard.last() else { panic!("{heard:?}") };
    assert!(
        !said.is_empty() && answer.text.starts_with(&said) && answer.stopped_by != StoppedBy::Caller,
        "{said:?} {answer:?}"
    );
    assert!(heard.iter().any(|e| matches!(e, Event::Fed { done, total } if done == total)));
    // As said just now, as restored after another question, and with another compression.
    let talked = Question {
        turns: vec![Turn { answer: answer.text.clone(), ..Turn::asked("She liked to") }],
        ..question("", 3)
    };
    let mut kept = |question: &Question| {
        window.worker.send(Command::Kept(question.clone()));
        match &window.until(|e| matches!(e, Event::Kept(_) | Event::Failed(_)))[..] {
            [Event::Kept(map)] => (**map).clone(),
            other => panic!("{other:?}"),
        }
    };
    let now = kept(&talked);
    assert_eq!(now.tokens.len(), answer.n_tokens);
    let harder = kept(&Question { attention: Attention::Lrsa(Lrsa::new(4, 8, 0.125).unwrap()), ..talked.clone() });
    let n_kept = |map: &KeptMap| map.kept[0][0].len();
    assert!(harder.tokens == now.tokens && n_kept(&harder) < n_kept(&now));

    let dense = Question { attention: Attention::Dense, ..question("She", 3) };
    window.worker.send(Command::Ask(dense.clone()));
    window.until(is_end);
    window.worker.send(Command::Kept(talked));
    let restored = window.until(|e| matches!(e, Event::Kept(_) | Event::Failed(_)));
    assert!(matches!(&restored[..], [Event::Kept(map)] if **map == now), "{restored:?}");
    window.worker.send(Command::Kept(dense));
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("keeps every token")));

    window.worker.send(Command::Ask(question("Then", 400)));
    window.until(|e| matches!(e, Event::Said(_)));
    window.worker.control.stop();
    let heard = window.until(is_end);
    assert!(matches!(heard.last(), Some(Event::Answered(a)) if a.stopped_by == StoppedBy::Caller), "{heard:?}");
    let missing = ModelChoice { model: "no/such/folder".into(), device: "cpu".into(), ..ModelChoice::default() };
    window.worker.send(Command::Open(missing));
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("no/such/folder")));
}

#[test]
fn a_model_that_cannot_be_opened_leaves_the_open_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let broken = |name: &str, file: &str, text: &str| {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join(file), text).unwrap();
    };
    broken("model", "config.json", "{");
    broken("adapter", "adapter_config.json", "{}");
    // A model that lacks weights.
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    std::fs::create_dir(at("short")).unwrap();
    for entry in std::fs::read_dir(bundled).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), at("short").join(entry.file_name())).unwrap();
    }
    let config = std::fs::read_to_string(at("short/config.json")).unwrap();
    let config = config.replace("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6");
    std::fs::write(at("short/config.json"), config).unwrap();
    let mut window = Window::new();
    window.open();
    window.worker.send(Command::Ask(question("She liked to", 5)));
    window.until(is_end);
    let good = ModelChoice { device: "cpu".into(), ..ModelChoice::default() };
    let choices = [
        ModelChoice { model: "no/such/folder".into(), ..good.clone() },
        ModelChoice { model: at("model").display().to_string(), ..good.clone() },
        ModelChoice { model: at("short").display().to_string(), ..good.clone() },
        ModelChoice { adapter: Some(at("adapter")), ..good.clone() },
        ModelChoice { device: "no such device".into(), ..good.clone() },
    ];
    for choice in choices {
        window.worker.send(Command::Open(choice.clone()));
        let heard = window.until(|e| is_end(e) || matches!(e, Event::Opened(_)));
        assert!(matches!(&heard[..], [Event::Failed(_)]), "{choice:?}: {heard:?}");
    }
    window.worker.send(Command::Ask(question("She liked to", 5)));
    let heard = window.until(is_end);
    assert!(matches!(heard.last(), Some(Event::Answered(a)) if a.n_reused > 0), "it kept its cache: {heard:?}");
    // A model that can be opened takes the memory of the open one.
    window.worker.send(Command::Open(good));
    let heard = window.until(|e| is_end(e) || matches!(e, Event::Opened(_)));
    assert!(matches!(&heard[..], [Event::Closed, Event::Opened(_)]), "{heard:?}");
}

#[test]
fn a_cut_answer_continues_as_if_it_had_not_been_cut() {
    let mut window = Window::new();
    window.open();
    let mut ask = |question: Question| {
        window.worker.send(Command::Ask(question));
        match window.until(is_end).pop() {
            Some(Event::Answered(answer)) => answer,
            other => panic!("{other:?}"),
        }
    };
    let first = ask(question("She liked to", 6));
    assert_eq!((first.stopped_by, first.n_said), (StoppedBy::MaxTokens, 6));
    let mut rest = question("She liked to", 6);
    rest.turns[0].answer.clone_from(&first.text);
    let second = ask(rest);
    assert_eq!(second.n_reused, first.n_tokens - 1, "nothing is read again but the last token");
    let whole = ask(question("She liked to", 12));
    assert_eq!((whole.text, whole.n_tokens), (first.text + &second.text, second.n_tokens));
}

#[test]
fn it_trains_pauses_and_keeps_what_a_stop_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let job = run_in(dir.path());
    let out = job.out.clone();
    let mut window = Window::new();
    let forecast = Command::Forecast { job: Box::new(job.clone()), device: "cpu".into() };
    window.worker.send(forecast);
    let heard = window.until(|e| matches!(e, Event::Forecast(_) | Event::Failed(_)));
    let Some(Event::Forecast(found)) = heard.last() else { panic!("{heard:?}") };
    let learnt: Vec<bool> = found.examples[0].iter().map(|p| p.1).collect();
    assert_eq!((found.n_records, found.examples.len(), learnt), (4, 4, vec![false, true]));
    assert!(found.examples[0][1].0.contains("there was a whale"), "{found:?}");
    let (forecast, longest) = (&found.forecast, found.forecast.data.longest);
    assert!(forecast.memory.peak() > 1 << 20 && forecast.steps == 500 && forecast.seconds_per_step > Some(0.0));
    assert_eq!((found.by_length.last(), found.too_large.clone()), (Some(&(longest, forecast.memory.peak())), None));
    assert!(!job.out.exists(), "a check writes nothing");

    let start = |window: &mut Window| {
        window.worker.send(train(&job, true));
        window.until(|e| matches!(e, Event::TrainStep(s) if s.step == 2));
    };
    start(&mut window);
    window.worker.control.pause(true);
    // One step may be running and one queued; no further step may follow.
    std::thread::sleep(Duration::from_millis(500));
    while window.events.try_recv().is_ok() {}
    std::thread::sleep(Duration::from_millis(300));
    let late: Vec<Event> = window.events.try_iter().collect();
    assert!(!late.iter().any(|e| matches!(e, Event::TrainStep(_))), "a paused run takes no step: {late:?}");
    window.worker.control.pause(false);
    window.until(|e| matches!(e, Event::TrainStep(_)));
    window.worker.control.stop();
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Trained(s)) if s.cancelled && s.steps < 500), "{heard:?}");
    assert!(out.join("adapter_model.safetensors").exists(), "the trained weights are saved");
    window.worker.send(train(&job, false));
    let heard = window.until(|e| matches!(e, Event::WouldContinue(_) | Event::Trained(_) | Event::Failed(_)));
    assert_eq!(heard, [Event::WouldContinue(out.clone())], "the user chooses between that run and a new one");
    let other = TrainJob { lr: Some(1e-9), ..job.clone() };
    window.worker.send(train(&other, false));
    let heard = window.until(|e| matches!(e, Event::WouldReplace(_) | Event::Trained(_) | Event::Failed(_)));
    assert_eq!(heard, [Event::WouldReplace(out.clone())], "the run does not start before the user agrees");

    // Closing the window during a run saves the weights trained so far.
    std::fs::remove_dir_all(&out).unwrap();
    start(&mut window);
    let Window { mut worker, events } = window;
    worker.finish().unwrap();
    drop(events);
    assert!(out.join("adapter_model.safetensors").exists());
    let mut window = Window::new();

    // A stop right after the start applies to the new run.
    window.worker.send(train(&job, true));
    window.worker.control.stop();
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Trained(s)) if s.cancelled && s.steps < 5), "{heard:?}");

    // The data disappears: the run fails with a reason, and the worker stays available.
    std::fs::remove_dir_all(&job.data).unwrap();
    window.worker.send(train(&job, true));
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("does not exist")), "{heard:?}");
    assert!(out.join("adapter_model.safetensors").exists());
    window.open();
}

#[test]
fn a_fault_of_the_engine_costs_neither_the_worker_nor_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let job = run_in(dir.path());
    let panics = Arc::new(AtomicBool::new(false));
    let flag = panics.clone();
    let look = move |event: &Event| {
        let is_hit = matches!(event, Event::Said(_) | Event::TrainSaved(4)) && flag.swap(false, Ordering::AcqRel);
        assert!(!is_hit, "a fault that a test planted");
    };
    let mut window = Window::with(look, Arc::new(open_device));
    window.open();
    for command in [Command::Ask(question("She", 20)), train(&job, true)] {
        panics.store(true, Ordering::Release);
        window.worker.send(command);
        let heard = window.until(|e| matches!(e, Event::Restarted(_) | Event::Trained(_) | Event::Answered(_)));
        assert!(
            matches!(heard.last(), Some(Event::Restarted(why)) if why.contains("a fault that a test planted")),
            "{heard:?}"
        );
        window.open();
    }
    assert!(job.out.join("adapter_model.safetensors").exists(), "the save of step 4 stays");
    window.worker.send(Command::Ask(question("She", 5)));
    assert!(matches!(window.until(is_end).last(), Some(Event::Answered(_))));
}

#[test]
fn a_lost_device_ends_the_job_with_its_checkpoint_kept() {
    let dir = tempfile::tempdir().unwrap();
    let job = run_in(dir.path());
    // The first device serves the chat, the second is lost during a run, the third works again.
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let open: Open = Arc::new(move |wanted| match count.fetch_add(1, Ordering::AcqRel) {
        1 => Ok(Box::new(CpuExecutor::<f32>::new().pretending_loss_after(20))),
        _ => open_device(wanted),
    });
    let mut window = Window::with(|_| {}, open);
    window.open();
    window.worker.send(train(&job, false));
    let heard = window.until(|e| matches!(e, Event::Restarted(_) | Event::Trained(_) | Event::Failed(_)));
    let Some(Event::Restarted(why)) = heard.last() else { panic!("{heard:?}") };
    assert!(why.contains("lost") && why.contains("is kept in"), "{why}");
    let saved = heard.iter().filter(|e| matches!(e, Event::TrainSaved(_))).count();
    assert!(saved > 0 && job.out.join("adapter_config.json").exists(), "{saved} saves, then {why}");
    window.open();
    assert_eq!(opened.load(Ordering::Acquire), 3);
}

// Windows cannot move a folder while a file in it is open.
#[cfg(unix)]
#[test]
fn what_is_taken_away_in_mid_run_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    for entry in std::fs::read_dir(bundled).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let job = TrainJob { model: model.display().to_string(), ..run_in(dir.path()) };
    let begin = |window: &mut Window| {
        window.worker.send(train(&job, true));
        window.until(|e| matches!(e, Event::TrainSaved(2)));
    };
    let end = |window: &mut Window| window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    // Make saving fail: right after a save, a file takes the place of the folder.
    let fills = Arc::new(AtomicBool::new(true));
    let (flag, out, saved) = (fills.clone(), job.out.clone(), dir.path().join("saved"));
    let look = move |event: &Event| {
        if matches!(event, Event::TrainSaved(2)) && flag.swap(false, Ordering::AcqRel) {
            std::fs::rename(&out, &saved).unwrap();
            std::fs::write(&out, "").unwrap();
        }
    };
    let mut window = Window::with(look, Arc::new(open_device));
    begin(&mut window);
    let heard = window.until(|e| matches!(e, Event::Note(_)));
    assert!(matches!(heard.last(), Some(Event::Note(text)) if text.contains("The run continues")), "{heard:?}");
    window.until(|e| matches!(e, Event::TrainStep(_)));
    window.worker.control.stop();
    let asked = |e: &Event| matches!(e, Event::SaveFailed(_) | Event::Trained(_) | Event::Failed(_));
    for _ in 0..2 {
        let heard = window.until(asked);
        assert!(matches!(heard.last(), Some(Event::SaveFailed(why)) if why.contains("out")), "{heard:?}");
        window.worker.control.answer(true);
    }
    window.until(asked);
    std::fs::remove_file(&job.out).unwrap();
    window.worker.control.answer(true);
    let heard = end(&mut window);
    assert!(matches!(heard.last(), Some(Event::Trained(s)) if s.steps > 2), "nothing was lost: {heard:?}");
    assert!(job.out.join("adapter_model.safetensors").exists());
    // Closing the window discards weights that cannot be saved, instead of waiting for ever, and
    // reports it.
    std::fs::remove_dir_all(dir.path().join("saved")).unwrap();
    fills.store(true, Ordering::Release);
    begin(&mut window);
    let Window { mut worker, events } = window;
    let e = worker.finish().unwrap_err().to_string();
    assert!(e.contains("after the window was closed") && e.contains("out"), "{e}");
    drop(events);
    std::fs::remove_file(&job.out).unwrap();
    let mut window = Window::new();
    // The model's files disappear: a run that has loaded them continues, saves and stops; the next
    // run reports them missing.
    begin(&mut window);
    std::fs::remove_dir_all(&model).unwrap();
    window.until(|e| matches!(e, Event::TrainStep(_)));
    window.worker.control.stop();
    let heard = end(&mut window);
    assert!(heard.last().is_some_and(|e| matches!(e, Event::Trained(_) | Event::Failed(_))), "{heard:?}");
    assert!(job.out.join("adapter_model.safetensors").exists());
    window.worker.send(train(&job, true));
    let heard = end(&mut window);
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("model")), "{heard:?}");
    window.open();
}

#[test]
fn a_check_is_broken_off_when_asked() {
    let control: Arc<OnceLock<Arc<Control>>> = Arc::default();
    let stops = control.clone();
    let look = move |event: &Event| {
        if let (Event::Checked(_), Some(control)) = (event, stops.get()) {
            control.stop();
        }
    };
    let mut window = Window::with(look, Arc::new(open_device));
    let _ = control.set(window.worker.control.clone());
    window.worker.send(Command::Check { device: "cpu".into() });
    let heard = window.until(|e| matches!(e, Event::CheckDone { .. } | Event::Failed(_)));
    let Some(Event::CheckDone { passed, failed, is_complete: false, report }) = heard.last() else {
        panic!("{heard:?}")
    };
    assert!(*passed > 0 && *failed == 0 && report.contains("the check was stopped"), "{passed} {failed}");
}

#[test]
fn the_opening_of_a_model_can_be_stopped() {
    let control: Arc<OnceLock<Arc<Control>>> = Arc::default();
    let stops = control.clone();
    // The user stops it while the device opens, once.
    let open: Open = Arc::new(move |name| {
        stops.get().filter(|_| name == "cpu").inspect(|control| control.stop());
        open_device("cpu")
    });
    let mut window = Window::with(|_| {}, open);
    let _ = control.set(window.worker.control.clone());
    window.worker.send(Command::Open(ModelChoice { device: "cpu".into(), ..ModelChoice::default() }));
    assert_eq!(window.until(|_| true), [Event::Stopped]);
    window.worker.send(Command::Open(ModelChoice { device: "auto".into(), ..ModelChoice::default() }));
    assert!(matches!(window.until(|_| true)[..], [Event::Opened(_)]));
    // So can the check of a run, which measures steps.
    let dir = tempfile::tempdir().unwrap();
    let job = run_in(dir.path());
    window.worker.send(Command::Forecast { job: Box::new(job.clone()), device: "cpu".into() });
    assert_eq!(window.until(|e| matches!(e, Event::Forecast(_) | Event::Stopped)).last(), Some(&Event::Stopped));
}

#[test]
fn tokens_are_counted_while_an_answer_is_written() {
    let mut window = Window::new();
    window.open();
    window.worker.send(Command::Ask(question("She liked to", 400)));
    window.until(|e| matches!(e, Event::Said(_)));
    let count = TokenCount { serial: 1, text: Arc::from("Once upon a time"), n_tokens: None };
    window.worker.count(count.clone());
    let heard = window.until(|e| matches!(e, Event::Counted(_)));
    let files = crate::checkpoint::model_files::ModelFiles::bundled(None).unwrap();
    let n_tokens = Some(files.tokenizer().unwrap().encode("Once upon a time", false).unwrap().len());
    assert_eq!(heard.last(), Some(&Event::Counted(TokenCount { n_tokens, ..count })));
    assert!(!heard.iter().any(is_end), "the answer goes on: {heard:?}");
}
