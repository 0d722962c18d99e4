//! The engine: one thread that owns the device and the models, and answers the jobs of the server.
//!
//! Between two passes it takes new jobs, lets finished ones go, and reads pieces of prompts. `round.rs`
//! says which answers get their next token in a pass, and how long prompts may be read. So a long
//! prompt does not hold the answers up, and a new prompt waits for a pass and not for all answers.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::logprobs::token_logprob;
use super::prefix::Prefixes;
use super::queue::Shared;
use super::reading::{Beginning, Read, Reading, new_session};
use super::room::{EngineLimits, Room};
use super::round::Round;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{Batch, GenerateRequest, Generated, NewToken, Session, StoppedBy};
use crate::gpu::Device;
use crate::kernels::few_rows::MOST_ROWS;
use crate::model::llama::Llama;
use crate::serve::job::{Event, Failure, Finish, Job};
use crate::text::tokenizer::Tokenizer;

/// The engine of one thread.
pub struct Engine<'t> {
    device: Device,
    models: Vec<Served<'t>>,
    limits: EngineLimits,
    shared: Arc<Shared>,
    /// Jobs that wait, in the order in which they came, each with the bytes of one answer.
    queue: VecDeque<(Job, u64)>,
    /// Prompts in progress, each with the bytes of one answer.
    readings: VecDeque<(Reading, u64)>,
    running: HashMap<u64, Running>,
    round: Round,
    n_started: u64,
    prefixes: Prefixes,
    /// Bytes that are reserved for running sequences, and their number.
    reserved_bytes: u64,
    n_sequences: usize,
    /// Alternates between the oldest prompt and the shortest.
    turn: bool,
}

/// A model with its answers in progress.
struct Served<'t> {
    model: Llama,
    batch: Batch<'t>,
    /// The job and the answer of each sequence of the batch, by its number.
    sequences: HashMap<u64, (u64, usize)>,
}

/// A job whose prompt is read.
struct Running {
    job: Job,
    answer_bytes: u64,
    started: Instant,
    n_left: usize,
}

/// What a step does with its job.
enum Verdict {
    Keep,
    Drop(Option<Failure>),
}

impl<'t> Engine<'t> {
    /// An engine for these models, the base first. Texts come from the tokenizer.
    pub fn new(
        device: Device,
        models: Vec<Llama>,
        tokenizer: &'t Tokenizer,
        limits: EngineLimits,
        shared: Arc<Shared>,
    ) -> Self {
        shared.metrics.cache_limit_bytes.store(limits.cache_bytes, Relaxed);
        let served = |model| Served { model, batch: Batch::new(Some(tokenizer)), sequences: HashMap::new() };
        Self {
            device,
            models: models.into_iter().map(served).collect(),
            limits,
            shared,
            queue: VecDeque::new(),
            readings: VecDeque::new(),
            running: HashMap::new(),
            round: Round::new(MOST_ROWS),
            n_started: 0,
            prefixes: Prefixes::new(limits.prefix_bytes),
            reserved_bytes: 0,
            n_sequences: 0,
            turn: false,
        }
    }

    /// Answers jobs until nobody can send any. Fails if the device is lost; jobs in progress are told.
    pub fn run(mut self, jobs: &mut UnboundedReceiver<Job>) -> Result<()> {
        while self.take_jobs(jobs) {
            self.drop_unwanted();
            self.admit();
            self.report();
            if let Err(lost) = self.read().and_then(|()| self.answer()) {
                self.fail_all(&Failure::Engine(lost.to_string()));
                self.shared.die(lost.to_string());
                return Err(lost);
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.readings.is_empty() && self.running.is_empty()
    }

    /// Takes the jobs that have come, and waits for one if there is nothing to do. False when the end
    /// has come.
    fn take_jobs(&mut self, jobs: &mut UnboundedReceiver<Job>) -> bool {
        if self.is_idle() {
            self.report();
            match jobs.blocking_recv() {
                Some(job) => self.queue_up(job),
                None => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => self.queue_up(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !self.is_idle(),
            }
        }
    }

    /// Puts a job into the queue, or refuses one that could never fit.
    fn queue_up(&mut self, job: Job) {
        match Room::new(&self.models[job.model].model, &self.limits).answer_bytes(&job) {
            Ok(bytes) => self.queue.push_back((job, bytes)),
            Err(why) => {
                self.shared.leave_queue();
                fail(&job, Some(Failure::TooLarge(why)));
            }
        }
    }

    /// What is to be done with a job now: nobody may wait for it, its time may be over, or the
    /// server's.
    fn verdict(&self, job: &Job) -> Verdict {
        let metrics = &self.shared.metrics;
        if job.events.is_closed() {
            metrics.cancelled.fetch_add(1, Relaxed);
            return Verdict::Drop(None);
        }
        if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            metrics.expired.fetch_add(1, Relaxed);
            return Verdict::Drop(Some(Failure::Deadline));
        }
        let is_over = self.shared.stop_at().is_some_and(|end| end <= Instant::now());
        if is_over { Verdict::Drop(Some(Failure::Stopping)) } else { Verdict::Keep }
    }

    fn drop_unwanted(&mut self) {
        for (job, bytes) in std::mem::take(&mut self.queue) {
            let verdict = match self.shared.stop_at() {
                Some(_) => Verdict::Drop(Some(Failure::Stopping)), // what has not begun does not begin
                None => self.verdict(&job),
            };
            match verdict {
                Verdict::Keep => self.queue.push_back((job, bytes)),
                Verdict::Drop(failure) => {
                    self.shared.leave_queue();
                    fail(&job, failure);
                }
            }
        }
        for (reading, bytes) in std::mem::take(&mut self.readings) {
            match self.verdict(&reading.job) {
                Verdict::Keep => self.readings.push_back((reading, bytes)),
                Verdict::Drop(failure) => {
                    self.release(bytes, reading.job.n);
                    fail(&reading.job, failure);
                }
            }
        }
        let unwanted: Vec<(u64, Option<Failure>)> = self
            .running
            .iter()
            .filter_map(|(&number, running)| match self.verdict(&running.job) {
                Verdict::Keep => None,
                Verdict::Drop(failure) => Some((number, failure)),
            })
            .collect();
        for (number, failure) in unwanted {
            self.end_job(number, failure);
        }
    }

    /// Ends a running job, and all of its answers.
    fn end_job(&mut self, number: u64, failure: Option<Failure>) {
        let Some(running) = self.running.remove(&number) else { return };
        let served = &mut self.models[running.job.model];
        let of_job = served.sequences.extract_if(|_, (job, _)| *job == number);
        for (sequence, _) in of_job.collect::<Vec<_>>() {
            served.batch.leave(sequence);
        }
        self.release(running.answer_bytes, running.n_left);
        fail(&running.job, failure);
    }

    fn fail_all(&mut self, failure: &Failure) {
        for (job, _) in self.queue.drain(..) {
            self.shared.leave_queue();
            fail(&job, Some(failure.clone()));
        }
        for (reading, bytes) in std::mem::take(&mut self.readings) {
            self.release(bytes, reading.job.n);
            fail(&reading.job, Some(failure.clone()));
        }
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            self.end_job(number, Some(failure.clone()));
        }
    }

    /// Gives back what was reserved for so many answers.
    fn release(&mut self, answer_bytes: u64, n_answers: usize) {
        self.reserved_bytes -= answer_bytes * n_answers as u64;
        self.n_sequences -= n_answers;
    }

    /// Starts the jobs at the head of the queue as long as they fit.
    fn admit(&mut self) {
        while let Some((job, bytes)) = self.queue.front() {
            let EngineLimits { cache_bytes, sequences, .. } = self.limits;
            let fits =
                self.reserved_bytes + bytes * job.n as u64 <= cache_bytes && self.n_sequences + job.n <= sequences;
            if !fits || !self.begin() {
                return;
            }
        }
    }

    /// Begins to read the first job of the queue. False if it has to wait for memory after all.
    fn begin(&mut self) -> bool {
        let Some((job, bytes)) = self.queue.pop_front() else { return false };
        let (n, n_prompt) = (job.n, job.prompt.len());
        let (model, step) = (&mut self.models[job.model].model, self.limits.step);
        match Beginning::open(&mut *self.device, model, &job, step, &mut self.prefixes) {
            Ok(beginning) => {
                let reading = Reading::new(job, beginning);
                self.reserved_bytes += bytes * n as u64;
                self.n_sequences += n;
                let metrics = &self.shared.metrics;
                metrics.prompt_tokens.fetch_add(n_prompt as u64, Relaxed);
                metrics.cached_tokens.fetch_add(reading.cached_tokens as u64, Relaxed);
                tell(&reading.job, Event::Started { cached_tokens: reading.cached_tokens });
                self.readings.push_back((reading, bytes));
            }
            Err(e) if e.kind() == ErrorKind::OutOfMemory && self.n_sequences > 0 => {
                self.queue.push_front((job, bytes));
                return false;
            }
            Err(e) => fail(&job, Some(self.failure_of(&e))),
        }
        self.shared.leave_queue();
        true
    }

    /// What a client is told of an error in its own job. Memory that others hold may be free at the next try.
    fn failure_of(&self, e: &Error) -> Failure {
        match e.kind() {
            ErrorKind::OutOfMemory if self.n_sequences == 0 => Failure::TooLarge(e.to_string()),
            _ => Failure::Engine(e.to_string()),
        }
    }

    /// Reads pieces of prompts until one is read to its end, or the round has no time left for more.
    fn read(&mut self) -> Result<()> {
        let n_started = self.n_started;
        while !self.readings.is_empty() && self.round.may_read() && self.n_started == n_started {
            let started = Instant::now();
            self.read_piece()?;
            self.round.note_read(started.elapsed());
        }
        Ok(())
    }

    /// Reads a piece of one prompt: of the oldest and of the shortest in turn, so that a short prompt
    /// does not wait for long ones, and a long one is not overtaken for ever.
    fn read_piece(&mut self) -> Result<()> {
        self.turn = !self.turn;
        let shortest = (0..self.readings.len()).min_by_key(|&i| self.readings[i].0.n_left());
        let next = if self.turn { shortest } else { Some(0) };
        let Some((reading, _)) = next.and_then(|i| self.readings.get_mut(i)) else { return Ok(()) };
        let model = &self.models[reading.job.model].model;
        let read = reading.step(&mut *self.device, model, &mut self.prefixes).and_then(|()| self.device.wait());
        if read.is_ok() && reading.n_left() > 0 {
            return Ok(());
        }
        let Some((reading, bytes)) = next.and_then(|i| self.readings.remove(i)) else { return Ok(()) };
        match read {
            Ok(()) => self.start(reading.finish(), bytes),
            Err(e) if e.kind() == ErrorKind::DeviceLost => {
                self.readings.push_back((reading, bytes)); // told with all others
                Err(e)
            }
            Err(e) => {
                self.release(bytes, reading.job.n);
                fail(&reading.job, Some(self.failure_of(&e)));
                Ok(())
            }
        }
    }

    /// Starts the answers to a prompt.
    fn start(&mut self, read: Read, answer_bytes: u64) -> Result<()> {
        let Read { job, session, seconds, logprobs } = read;
        if job.prompt_logprobs {
            tell(&job, Event::Prompt(logprobs));
        }
        if job.max_tokens == 0 {
            for answer in 0..job.n {
                tell(&job, Event::Ended { answer, finish: Finish::Length, generated_tokens: 0 });
            }
            self.release(answer_bytes, job.n);
            return Ok(());
        }
        let served = &mut self.models[job.model];
        let sessions = match branches(&mut *self.device, &mut served.model, &job, self.limits.step, session) {
            Ok(sessions) => sessions,
            Err(e) => {
                self.release(answer_bytes, job.n);
                fail(&job, Some(self.failure_of(&e)));
                return if e.kind() == ErrorKind::DeviceLost { Err(e) } else { Ok(()) };
            }
        };
        let request = GenerateRequest {
            attention: job.attention,
            stop: &job.stop,
            stop_texts: &job.stop_texts,
            shown: &job.shown,
            ..GenerateRequest::greedy(&job.prompt, job.max_tokens)
        };
        let number = self.n_started;
        self.n_started += 1;
        for (answer, session) in sessions.into_iter().enumerate() {
            let sequence = served.batch.join_fed(&request, session, seconds);
            served.sequences.insert(sequence, (number, answer));
        }
        self.round.first(job.model, job.n);
        let n_left = job.n;
        self.running.insert(number, Running { job, answer_bytes, started: Instant::now(), n_left });
        Ok(())
    }

    /// Generates a token of the answers whose turn it is.
    fn answer(&mut self) -> Result<()> {
        let Some((at, n)) = self.round.next_pass(self.models.iter().map(|served| served.batch.len())) else {
            return Ok(());
        };
        let Self { device, models, running, shared, .. } = self;
        let Served { model, batch, sequences } = &mut models[at];
        let mut on_token = |sequence: u64, token: NewToken<'_>| {
            let (job, answer) = sequences[&sequence];
            let job = &running[&job].job;
            shared.metrics.generated_tokens.fetch_add(1, Relaxed);
            let logprob = token.logits.zip(job.logprobs).map(|(row, n)| token_logprob(row, token.id, n));
            tell(job, Event::Token { answer, id: token.id, text: token.text.to_owned(), logprob });
            ControlFlow::Continue(())
        };
        let ended = match batch.step_some(&mut **device, model, n, &mut on_token) {
            Err(e) if e.kind() != ErrorKind::DeviceLost => {
                self.fail_model(at, &e);
                return Ok(());
            }
            ended => ended?,
        };
        let of = |(sequence, generated): (u64, Generated)| Some((sequences.remove(&sequence)?, generated));
        for ((job, answer), generated) in ended.into_iter().filter_map(of).collect::<Vec<_>>() {
            self.end_answer(job, answer, &generated);
        }
        Ok(())
    }

    /// Ends the running jobs of a model whose pass has failed.
    fn fail_model(&mut self, model: usize, e: &Error) {
        let of_model = self.running.iter().filter(|(_, running)| running.job.model == model);
        for number in of_model.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.end_job(number, Some(Failure::Engine(e.to_string())));
        }
    }

    fn end_answer(&mut self, number: u64, answer: usize, generated: &Generated) {
        if let Some(why) = &generated.constraint_failure {
            let why = format!("the answer cannot go on in the form that was asked: {why}");
            return self.end_job(number, Some(Failure::Engine(why)));
        }
        let finish = if generated.stopped_by == StoppedBy::MaxTokens { Finish::Length } else { Finish::Stop };
        let Some(running) = self.running.get_mut(&number) else { return };
        running.n_left -= 1;
        tell(&running.job, Event::Ended { answer, finish, generated_tokens: generated.generated_tokens });
        let Running { answer_bytes, started, n_left, .. } = *running;
        if n_left == 0 {
            self.shared.took(started.elapsed());
            self.running.remove(&number);
        }
        self.release(answer_bytes, 1);
    }

    fn report(&self) {
        let metrics = &self.shared.metrics;
        metrics.running.store(self.n_sequences as u64, Relaxed);
        metrics.cache_bytes.store(self.reserved_bytes, Relaxed);
        metrics.prefix_bytes.store(self.prefixes.n_bytes(), Relaxed);
    }
}

/// A session for each answer: that of the prompt, and copies of it.
fn branches(
    device: &mut dyn crate::gpu::Executor,
    model: &mut Llama,
    job: &Job,
    step: usize,
    first: Session,
) -> Result<Vec<Session>> {
    let mut sessions = vec![first];
    for i in 1..job.n {
        let mut session = new_session(device, model, job, step, i)?;
        session.branch_from(device, &sessions[0])?;
        sessions.push(session);
    }
    Ok(sessions)
}

fn tell(job: &Job, event: Event) {
    let _closed = job.events.send(event); // a client that has left is noticed between steps
}

fn fail(job: &Job, failure: Option<Failure>) {
    if let Some(failure) = failure {
        tell(job, Event::Failed(failure));
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
