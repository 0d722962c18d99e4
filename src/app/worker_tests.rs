//! The worker with its real engine, on the CPU and the bundled model: answers, stops, failures that it outlives.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::message::{Command, Event, ModelChoice, Question, Turn};
use super::worker::Worker;
use crate::attention::{Attention, Lrsa};
use crate::model::record::AttentionRecord;
use crate::train::TrainJob;

struct Window {
    worker: Worker,
    events: Receiver<Event>,
}

impl Window {
    fn new() -> Self {
        let (sender, events) = channel();
        let sender = std::sync::Mutex::new(sender);
        let worker = Worker::start(Arc::new(move |event| {
            let _ = sender.lock().unwrap().send(event);
        }));
        Self { worker, events }
    }

    /// The events up to the first that `ends`.
    fn until(&mut self, ends: impl Fn(&Event) -> bool) -> Vec<Event> {
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

    fn open(&mut self) {
        self.worker.send(Command::Open(ModelChoice { device: "cpu".into(), ..ModelChoice::default() }));
        let heard = self.until(|e| matches!(e, Event::Opened(_)));
        assert_eq!(heard.len(), 1);
    }
}

fn question(text: &str, max_tokens: usize) -> Question {
    Question {
        document: Arc::from("Once upon a time there was a girl called Lily who lived by the sea."),
        turns: vec![Turn { question: text.into(), ..Turn::default() }],
        attention: Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap()),
        max_tokens,
        seed: 0,
    }
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
    window.worker.send(Command::Kept);
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("ask")));
    window.worker.send(Command::Ask(question("She liked to", 40)));
    let heard = window.until(is_end);
    let said: String = heard.iter().map(|e| if let Event::Said(t) = e { t.as_str() } else { "" }).collect();
    let Some(Event::Answered(answer)) = heard.last() else { panic!("{heard:?}") };
    assert!(!said.is_empty() && answer.text.starts_with(&said) && !answer.is_stopped, "{said:?} {answer:?}");
    assert!(heard.iter().any(|e| matches!(e, Event::Fed { done, total } if done == total)));
    window.worker.send(Command::Kept);
    let kept = window.until(|e| matches!(e, Event::Kept(_) | Event::Failed(_)));
    assert!(matches!(&kept[..], [Event::Kept(map)] if map.tokens.len() == answer.n_tokens), "{kept:?}");

    let dense = Question { attention: Attention::Dense, ..question("She", 3) };
    window.worker.send(Command::Ask(dense));
    window.until(is_end);
    window.worker.send(Command::Kept);
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("keeps everything")));

    window.worker.send(Command::Ask(question("Then", 400)));
    window.until(|e| matches!(e, Event::Said(_)));
    window.worker.control.stop();
    let heard = window.until(is_end);
    assert!(matches!(heard.last(), Some(Event::Answered(a)) if a.is_stopped), "{heard:?}");
    let missing = ModelChoice { model: "no/such/folder".into(), device: "cpu".into(), ..ModelChoice::default() };
    window.worker.send(Command::Open(missing));
    assert!(matches!(&window.until(is_end)[..], [Event::Failed(why)] if why.contains("no/such/folder")));
}

#[test]
fn it_trains_pauses_and_keeps_what_a_stop_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    let line = r#"{"prompt": "Once upon a time", "completion": " there was a whale."}"#;
    std::fs::write(data.join("train.jsonl"), [line; 4].join("\n")).unwrap();
    let job = TrainJob {
        data: data.clone(),
        out: out.clone(),
        steps: Some(500),
        rank: Some(2),
        attention: Some(AttentionRecord::Dense),
        ..TrainJob::default()
    };
    let mut window = Window::new();
    let choice = ModelChoice { device: "cpu".into(), ..ModelChoice::default() };
    window.worker.send(Command::Preview { choice, data });
    let heard = window.until(|e| matches!(e, Event::Preview(_) | Event::Failed(_)));
    let Event::Preview(examples) = &heard[0] else { panic!("{heard:?}") };
    let learnt: Vec<bool> = examples[0].iter().map(|p| p.1).collect();
    assert_eq!((examples.len(), learnt), (4, vec![false, true]));
    assert!(examples[0][1].0.contains("there was a whale"), "{examples:?}");

    let start = |window: &mut Window| {
        window.worker.send(Command::Train { job: Box::new(job.clone()), device: "cpu".into() });
        window.until(|e| matches!(e, Event::TrainStep(s) if s.step == 2));
    };
    window.worker.send(Command::Estimate { job: Box::new(job.clone()), device: "cpu".into() });
    let heard = window.until(|e| matches!(e, Event::Estimated(_) | Event::Failed(_)));
    assert!(matches!(heard[0], Event::Estimated(bytes) if bytes > 1 << 20), "{heard:?}");
    start(&mut window);
    window.worker.control.pause(true);
    // One step may be on its way and one queued; then nothing comes.
    std::thread::sleep(Duration::from_millis(300));
    while window.events.try_recv().is_ok() {}
    std::thread::sleep(Duration::from_millis(300));
    assert!(window.events.try_recv().is_err(), "a paused run takes no step");
    window.worker.control.pause(false);
    window.until(|e| matches!(e, Event::TrainStep(_)));
    window.worker.control.stop();
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Trained(s)) if s.cancelled && s.steps < 500), "{heard:?}");
    assert!(out.join("adapter_model.safetensors").exists(), "what was trained is kept");

    // A window that is closed in the middle of a run leaves what was trained.
    std::fs::remove_dir_all(&out).unwrap();
    start(&mut window);
    let Window { worker, events } = window;
    assert!(worker.finish());
    drop(events);
    assert!(out.join("adapter_model.safetensors").exists());
    let mut window = Window::new();

    // A stop that comes right after the start is meant for what was started.
    window.worker.send(Command::Train { job: Box::new(job.clone()), device: "cpu".into() });
    window.worker.control.stop();
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Trained(s)) if s.cancelled && s.steps < 5), "{heard:?}");

    // The data disappears; the run fails, says why, and the worker is there for the next one.
    std::fs::remove_dir_all(&job.data).unwrap();
    window.worker.send(Command::Train { job: Box::new(job.clone()), device: "cpu".into() });
    let heard = window.until(|e| matches!(e, Event::Trained(_) | Event::Failed(_)));
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("does not exist")), "{heard:?}");
    assert!(out.join("adapter_model.safetensors").exists());
    window.open();
}
