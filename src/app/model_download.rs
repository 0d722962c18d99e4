//! Downloads a model on a thread of its own and reports its progress.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::downloads::{DownloadEvent, Progress};
use super::labels::in_words;
use crate::checkpoint::hub::{Hub, Name, Step};
use crate::checkpoint::hub_survey::{Survey, SurveyFile};
use crate::error::{Error, ErrorKind};

/// Time between two reports.
const BETWEEN: Duration = Duration::from_millis(200);
/// Time over which the speed is measured.
const SPEED_OVER: Duration = Duration::from_secs(5);

/// Downloads what a survey lists. Ends when `is_ended` says so; a later download continues there.
pub fn download(hub: &Hub, survey: &Survey, is_ended: &dyn Fn() -> bool, tell: &dyn Fn(DownloadEvent)) {
    let Some(name) = Name::parse(&survey.name) else {
        return tell(DownloadEvent::Failed(format!("'{}' is no model id", survey.name)));
    };
    let meter = RefCell::new(Meter::new(survey));
    let watch = |step: Step<'_>| {
        let mut meter = meter.borrow_mut();
        meter.take(step);
        if let Some(progress) = meter.report(Instant::now()) {
            tell(DownloadEvent::Progress(progress));
        }
        if is_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match hub.fetch_watched(&name, &watch) {
        Ok(_) => tell(DownloadEvent::Done { n_checked: meter.borrow().n_checked }),
        Err(e) if e.kind() == ErrorKind::Interrupted => tell(DownloadEvent::Ended),
        Err(e) => tell(DownloadEvent::Failed(why(&e))),
    }
}

/// Why a download failed, in words.
pub fn why(e: &Error) -> String {
    in_words(&e.to_string())
}

/// Adds up what comes.
struct Meter {
    files: Vec<SurveyFile>,
    current: String,
    note: Option<String>,
    n_checked: usize,
    /// Bytes that have come, by time.
    came: VecDeque<(Instant, u64)>,
    reported: Option<Instant>,
}

impl Meter {
    fn new(survey: &Survey) -> Self {
        Self {
            files: survey.files.clone(),
            current: String::new(),
            note: None,
            n_checked: 0,
            came: VecDeque::new(),
            reported: None,
        }
    }

    /// The entry of the current file. One that the survey did not list is added.
    fn file(&mut self) -> &mut SurveyFile {
        let at = self.files.iter().position(|file| file.name == self.current).unwrap_or(self.files.len());
        if at == self.files.len() {
            self.files.push(SurveyFile { name: self.current.clone(), size: 0, have: 0 });
        }
        &mut self.files[at]
    }

    fn take(&mut self, step: Step<'_>) {
        self.note = None;
        match step {
            Step::File { name, have, size } => {
                self.current = name.to_string();
                self.came.clear(); // the bytes that are there have not come now
                let file = self.file();
                (file.have, file.size) = (have, size.unwrap_or(file.size).max(have));
                self.reported = None;
            }
            Step::Bytes(have) => {
                let file = self.file();
                (file.have, file.size) = (have, file.size.max(have));
            }
            Step::Checking => {
                self.note = Some("comparing the SHA-256".into());
                self.reported = None;
            }
            Step::Whole { is_checked } => {
                self.n_checked += usize::from(is_checked);
                let file = self.file();
                file.size = file.have;
                self.reported = None;
            }
            Step::Waiting(why) => self.note = Some(why.to_string()),
        }
    }

    /// The progress, unless the last one was reported just before.
    fn report(&mut self, now: Instant) -> Option<Progress> {
        let have: u64 = self.files.iter().map(|file| file.have).sum();
        if self.reported.is_some_and(|last| now.duration_since(last) < BETWEEN) {
            return None;
        }
        self.reported = Some(now);
        self.came.push_back((now, have));
        while self.came.len() > 2 && now.duration_since(self.came[1].0) >= SPEED_OVER {
            self.came.pop_front();
        }
        let n_whole = self.files.iter().filter(|file| file.have == file.size).count();
        Some(Progress {
            file: self.current.clone(),
            files: (n_whole, self.files.len()),
            bytes: (have, self.files.iter().map(|file| file.size).sum()),
            bytes_per_s: self.speed(),
            note: self.note.clone(),
        })
    }

    fn speed(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.came.front()?, self.came.back()?);
        let seconds = last.duration_since(*first).as_secs_f64();
        (seconds > 0.5).then(|| to.saturating_sub(*from) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::hub::hub_test_server::{COMMIT, Reply, hasty, serve, set_rule};
    use std::cell::Cell;

    const SMALL: [(&str, &str); 3] = [
        ("org/small/config.json", "{}"),
        ("org/small/tokenizer.json", "tok"),
        ("org/small/model.safetensors", "weights"),
    ];

    /// The reports of a download that ends after so many.
    fn reports(hub: &Hub, survey: &Survey, n: usize) -> Vec<DownloadEvent> {
        let heard = RefCell::new(Vec::new());
        let n_heard = Cell::new(0);
        download(hub, survey, &|| n_heard.get() >= n, &|event| {
            n_heard.set(n_heard.get() + 1);
            heard.borrow_mut().push(event);
        });
        heard.into_inner()
    }

    #[test]
    fn a_download_reports_files_and_bytes_and_the_checksums_compared() {
        let (endpoint, shelf) = serve(&SMALL);
        let sha = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"; // of "weights"
        set_rule(&shelf, move |r, _| {
            let is_weights = r.path.ends_with("model.safetensors") && !r.path.contains("/api/");
            is_weights.then(|| Reply::new(200, &[("ETag", sha), ("X-Repo-Commit", COMMIT)], b"weights"))
        });
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        let survey = hub.survey("org/small").unwrap();
        let heard = reports(&hub, &survey, usize::MAX);
        assert_eq!(heard.last(), Some(&DownloadEvent::Done { n_checked: 1 }), "{heard:?}");
        let progress: Vec<&Progress> =
            heard.iter().filter_map(|e| if let DownloadEvent::Progress(p) = e { Some(p) } else { None }).collect();
        let last = progress.last().unwrap();
        assert_eq!((last.files, last.bytes, last.file.as_str()), ((3, 3), (12, 12), "model.safetensors"));
        assert!(progress.iter().any(|p| p.note.as_deref() == Some("comparing the SHA-256")));
        assert!(progress.windows(2).all(|pair| pair[0].bytes.0 <= pair[1].bytes.0));
        assert!(hub.find(&Name::parse("org/small").unwrap()).is_some());
    }

    #[test]
    fn a_download_that_is_ended_continues_where_it_was() {
        let long: String = (0..400_000).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        let files = [SMALL[0], SMALL[1], ("org/small/model.safetensors", long.as_str())];
        let (endpoint, shelf) = serve(&files);
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        let survey = hub.survey("org/small").unwrap();
        // The reports of the small files, and that the weights begin.
        let heard = RefCell::new(Vec::new());
        let is_ended = Cell::new(false);
        download(&hub, &survey, &|| is_ended.get(), &|event| {
            let begins = matches!(&event, DownloadEvent::Progress(p) if p.file == "model.safetensors");
            is_ended.set(is_ended.get() || begins);
            heard.borrow_mut().push(event);
        });
        assert_eq!(heard.borrow().last(), Some(&DownloadEvent::Ended), "{heard:?}");
        assert!(hub.find(&Name::parse("org/small").unwrap()).is_none());
        shelf.lock().unwrap().asked.clear();
        let heard = reports(&hub, &survey, usize::MAX);
        assert_eq!(heard.last(), Some(&DownloadEvent::Done { n_checked: 0 }), "its ETag is no SHA-256");
        let folder = hub.find(&Name::parse("org/small").unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("model.safetensors")).unwrap(), long);
    }

    #[test]
    fn failures_are_reported_with_what_to_do() {
        let (endpoint, shelf) = serve(&SMALL);
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        let survey = hub.survey("org/small").unwrap();
        set_rule(&shelf, |_, _| Some(Reply::new(403, &[], b"")));
        let heard = reports(&hub, &survey, usize::MAX);
        assert!(matches!(heard.last(), Some(DownloadEvent::Failed(why)) if why.contains("HF_TOKEN")), "{heard:?}");
        let gone = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub };
        let heard = reports(&gone, &survey, usize::MAX);
        assert!(matches!(heard.last(), Some(DownloadEvent::Failed(why)) if why.contains("check the network")));
    }

    #[test]
    fn the_speed_is_that_of_the_last_seconds() {
        let file = |name: &str, size| SurveyFile { name: name.into(), size, have: 0 };
        let survey = Survey { files: vec![file("a", 1000), file("b", 3000)], ..Survey::default() };
        let (mut meter, start) = (Meter::new(&survey), Instant::now());
        let at = |s: f64| start + Duration::from_secs_f64(s);
        meter.take(Step::File { name: "a", have: 0, size: Some(1000) });
        assert_eq!(meter.report(at(0.0)).unwrap().bytes_per_s, None);
        for second in 1..=10u32 {
            meter.take(Step::Bytes(u64::from(second) * 100));
            let progress = meter.report(at(f64::from(second))).unwrap();
            assert_eq!((progress.bytes_per_s, progress.bytes.1), (Some(100.0), 4000));
            assert!(meter.report(at(f64::from(second) + 0.1)).is_none(), "not so soon");
        }
        meter.take(Step::File { name: "b", have: 500, size: Some(3000) });
        let progress = meter.report(at(11.0)).unwrap();
        assert_eq!((progress.files, progress.bytes, progress.seconds_left()), ((1, 2), (1500, 4000), None));
        meter.take(Step::Bytes(1500));
        let progress = meter.report(at(13.0)).unwrap();
        assert_eq!((progress.bytes_per_s, progress.seconds_left()), (Some(500.0), Some(3.0)));
    }
}
