//! Event files of TensorBoard: the logs of a run as scalars.
//!
//! The file is a TFRecord file: the length of a record (u64) and its CRC, the bytes and their CRC.
//! Each record is an `Event` message in protocol buffers. Both are little-endian. The formats are
//! those of `record_writer.cc` and `event.proto` in TensorFlow.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use super::log_values::{eval_values, step_values, tokens_per_second};
use super::observer::{EvalLine, StepLine};
use crate::atomic_file::append_whole;
use crate::error::{Context, Result};

/// The folder of the event file, in that of the run.
pub(super) const FOLDER: &str = "tensorboard";
/// How TensorBoard knows event files.
const PREFIX: &str = "events.out.tfevents.";
/// The version that the first record of a file names.
const VERSION: &str = "brain.Event:2";

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file that is being written.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

/// The end of the names of our files: others write event files too.
const SUFFIX: &str = ".longreach";

impl EventFile {
    /// Begins the event file of the run in the folder `run` with the lines of its logs. Removes the
    /// event files of earlier runs there.
    ///
    /// The logs hold no time of day, so their lines get the times of a run that ended now and paused
    /// nowhere.
    pub fn of_logs(run: &Path, steps: &[StepLine], evaluations: &[EvalLine]) -> Result<Self> {
        let mut events = Self::create(&run.join(FOLDER))?;
        let mut time = now() - steps.iter().map(|line| line.seconds).sum::<f64>();
        events.write(Event { wall_time: time, file_version: Some(VERSION.into()), ..Event::default() })?;
        let mut evaluations = evaluations.iter().peekable();
        for line in steps {
            while let Some(earlier) = evaluations.next_if(|e| e.step < line.step) {
                events.write(eval_event(time, earlier)?)?;
            }
            time += line.seconds;
            events.write(step_event(time, line)?)?;
        }
        evaluations.try_for_each(|line| events.write(eval_event(time, line)?))?;
        Ok(events)
    }

    fn create(dir: &Path) -> Result<Self> {
        let create = || -> Result<Self> {
            fs::create_dir_all(dir)?;
            let is_link = dir.symlink_metadata()?.is_symlink();
            crate::ensure!(!is_link, "it is a link: event files go into a folder of the run itself");
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                    fs::remove_file(entry.path())?;
                }
            }
            let path = dir.join(format!("{PREFIX}{}{SUFFIX}", now() as u64));
            Ok(Self { file: File::create_new(&path)?, path })
        };
        create().with_context(|| format!("writing {}", dir.display()))
    }

    /// Appends the values of a step.
    pub fn add_step(&mut self, line: &StepLine) -> Result<()> {
        self.write(step_event(now(), line)?)
    }

    /// Appends the values of an evaluation.
    pub fn add_evaluation(&mut self, line: &EvalLine) -> Result<()> {
        self.write(eval_event(now(), line)?)
    }

    fn write(&mut self, event: Event) -> Result<()> {
        append_whole(&mut self.file, &record(&event.encode_to_vec()))
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn step_event(wall_time: f64, line: &StepLine) -> Result<Event> {
    let speed = tokens_per_second(line).map(|speed| ("tokens_per_second".to_string(), speed));
    Ok(event(wall_time, line.step, "train/", step_values(line)?.into_iter().chain(speed)))
}

fn eval_event(wall_time: f64, line: &EvalLine) -> Result<Event> {
    Ok(event(wall_time, line.step, "eval/", eval_values(line)?))
}

fn event(wall_time: f64, step: u64, prefix: &str, values: impl IntoIterator<Item = (String, f64)>) -> Event {
    let scalar = |(name, value)| Scalar { tag: format!("{prefix}{name}"), simple_value: Some(value as f32) };
    let summary = Summary { values: values.into_iter().map(scalar).collect() };
    Event { wall_time, step: step as i64, summary: Some(summary), ..Event::default() }
}

/// The bytes of a record of a TFRecord file.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// The CRC-32C as TFRecord files store it: a CRC of bytes that hold their own CRC is a weak one.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(step: u64, seconds: f64) -> StepLine {
        let value = json!({"step": step, "loss": 2.5, "lr": 0.25, "grad_norm": null, "tokens": 6, "seconds": seconds,
                           "bytes": 1});
        serde_json::from_value(value).unwrap()
    }

    /// The events of the only file in the folder of a run.
    fn events(run: &Path) -> Vec<Event> {
        let files: Vec<_> = fs::read_dir(run.join(FOLDER)).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = fs::read(&files[0]).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(record(data), &rest[..16 + length], "the sums are right");
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    fn tags_and_values(event: &Event) -> Vec<(&str, f32)> {
        let values = event.summary.iter().flat_map(|s| &s.values);
        values.map(|v| (v.tag.as_str(), v.simple_value.unwrap())).collect()
    }

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283); // RFC 3720, appendix B.4, has the polynomial
        // The header of TensorFlow's own records of 24 bytes, the first record of every event file.
        assert_eq!(record(&[0; 24])[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn an_event_file_holds_the_logs_and_what_follows() {
        let run = tempfile::tempdir().unwrap();
        let mut first = EventFile::of_logs(run.path(), &[], &[]).unwrap();
        first.add_step(&line(1, 1.0)).unwrap();
        drop(first);
        let eval = |step| EvalLine { step, loss: 0.0, perplexity: Some(1.0), tokens: 3, pairs: None };
        let mut events_of = EventFile::of_logs(run.path(), &[line(1, 2.0), line(2, 3.0)], &[eval(0), eval(2)]).unwrap();
        events_of.add_step(&line(3, 1.0)).unwrap();
        events_of.add_evaluation(&eval(3)).unwrap();
        let events = events(run.path());
        assert_eq!(events[0].file_version.as_deref(), Some(VERSION));
        assert_eq!(events.iter().map(|e| e.step).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 3, 3]);
        let values = tags_and_values(&events[2]);
        let tags: Vec<&str> = values.iter().map(|v| v.0).collect();
        assert_eq!(tags, ["train/loss", "train/learning_rate", "train/grad_norm", "train/tokens_per_second"]);
        assert!((values[0].1, values[1].1, values[3].1) == (2.5, 0.25, 3.0) && values[2].1.is_nan());
        assert_eq!(tags_and_values(&events[4]), [("eval/loss", 0.0), ("eval/perplexity", 1.0)]);
        let times: Vec<f64> = events.iter().map(|e| e.wall_time).collect();
        assert!(times.is_sorted() && (times[3] - times[0] - 5.0).abs() < 1e-3, "{times:?}");
    }
}
