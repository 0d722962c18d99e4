//! The generation loop of the command line, the demo and the app: prefill, draw, emit, feed.
//!
//! It takes token ids and returns token ids, with their text if a tokenizer is given. It handles no
//! chat templates and prints nothing. [`Session`] runs one step; [`crate::attention`] decides what
//! the cache keeps.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Session;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;
use crate::text::decode_stream::DecodeStream;
use crate::text::stop_text::StopTexts;
use crate::text::tokenizer::Tokenizer;

/// Default number of prompt tokens per chunk.
pub const DEFAULT_CHUNK: usize = 512;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest<'a> {
    /// The prompt, at least one token.
    pub prompt_ids: &'a [u32],
    /// Maximum number of tokens to generate, at least one.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Dense, or LRSA with its compressed cache.
    pub attention: Attention,
    /// Maximum prompt tokens per chunk. It bounds the memory of prefill and changes results only by
    /// rounding.
    pub chunk: usize,
    /// Tokens that end the text; empty to continue until `max_tokens`.
    pub stop: &'a [u32],
    /// Texts that end the text, also within tokens; the name of a special token stands for it. They
    /// need a tokenizer.
    pub stop_texts: &'a [String],
    /// Seed of the sampler.
    pub seed: u64,
}

impl<'a> GenerateRequest<'a> {
    /// Greedy generation with dense attention, the default chunk and no stop tokens.
    pub fn greedy(prompt_ids: &'a [u32], max_tokens: usize) -> Self {
        Self {
            prompt_ids,
            max_tokens,
            sampling: Sampling::default(),
            attention: Attention::Dense,
            chunk: DEFAULT_CHUNK,
            stop: &[],
            stop_texts: &[],
            seed: 0,
        }
    }
}

/// A newly generated token.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Its id.
    pub id: u32,
    /// The text that this token completes; empty within a character, within what may be a stop
    /// text, for special tokens, and without a tokenizer.
    pub text: &'a str,
}

/// What ended a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// A token of [`GenerateRequest::stop`]. It is the last id and not part of the text.
    StopToken,
    /// A text of [`GenerateRequest::stop_texts`]. The text ends before it, and the ids with the
    /// token that completed it.
    StopText,
    /// [`GenerateRequest::max_tokens`] was reached.
    MaxTokens,
    /// The callback ended it.
    Caller,
}

/// The generated tokens, with timings and cache size.
///
/// The last generated token is not fed, since nothing follows it: prompt + generated - 1 tokens
/// count as fed. A GPU may have started another step before the host knew of a stop token, and may
/// still be running it.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Generated ids, including a stop token.
    pub ids: Vec<u32>,
    /// Their text, without special tokens; empty without a tokenizer.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of `ids`.
    pub generated_tokens: usize,
    /// Time of prefill.
    pub prefill_seconds: f64,
    /// Time of everything after prefill: drawing the tokens, and feeding all but the last.
    pub decode_seconds: f64,
    /// Entries of one head's cache at the end, in a layer with full attention: cache_length(tokens
    /// fed).
    pub kv_entries: usize,
    /// Bytes of these entries in all layers.
    pub kv_bytes: u64,
    /// Why generation ended.
    pub stopped_by: StoppedBy,
}

impl Generated {
    /// Prompt tokens fed per second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill_seconds.max(f64::EPSILON)
    }

    /// Tokens fed and drawn per second of decode; 0 if only one token was generated.
    pub fn decode_tokens_per_s(&self) -> f64 {
        (self.generated_tokens - 1) as f64 / self.decode_seconds.max(f64::EPSILON)
    }
}

/// Generates from `request` and passes each token to `on_token`, which may end generation with
/// `ControlFlow::Break`.
///
/// Errors: an empty prompt, a zero `max_tokens` or `chunk`, a token outside the vocabulary, an empty
/// stop text, stop texts without a tokenizer, and device errors.
///
/// ```
/// use longreach::attention::{Attention, Lrsa};
/// use longreach::checkpoint::load::{Train, load};
/// use longreach::checkpoint::model_files::ModelFiles;
/// use longreach::generate::{GenerateRequest, generate};
/// use longreach::gpu::open_device;
/// use std::ops::ControlFlow;
///
/// let mut device = open_device("cpu")?;
/// let files = ModelFiles::bundled(None)?;
/// let mut loaded = load(device.as_mut(), &files.source, None, Train::Nothing)?;
/// let prompt_ids = files.prompt_ids("Once upon a time", false)?;
/// let request = GenerateRequest {
///     attention: Attention::Lrsa(Lrsa::new(4, 16, 0.25)?),
///     stop: files.stop.ids(),
///     ..GenerateRequest::greedy(&prompt_ids, 60)
/// };
/// let tokenizer = files.tokenizer().ok();
/// let mut show = |_: longreach::generate::NewToken<'_>| ControlFlow::Continue(());
/// let done = generate(device.as_mut(), &mut loaded.model, tokenizer, &request, &mut show)?;
/// assert!(done.text.starts_with(", there was a little girl named Lily"));
/// assert!(done.kv_entries < done.prompt_tokens + done.generated_tokens); // compressed
/// # Ok::<(), longreach::Error>(())
/// ```
pub fn generate(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: Option<&Tokenizer>,
    request: &GenerateRequest<'_>,
    on_token: &mut dyn FnMut(NewToken<'_>) -> ControlFlow<()>,
) -> Result<Generated> {
    generate_watched(device, model, tokenizer, request, &mut |_| {}, on_token)
}

/// [`generate`], which also calls `on_fed` before each chunk of the prompt with the tokens so far.
pub fn generate_watched(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: Option<&Tokenizer>,
    request: &GenerateRequest<'_>,
    on_fed: &mut dyn FnMut(usize),
    on_token: &mut dyn FnMut(NewToken<'_>) -> ControlFlow<()>,
) -> Result<Generated> {
    check(request, tokenizer)?;
    let GenerateRequest { sampling, attention, chunk, seed, .. } = *request;
    let capacity = request.prompt_ids.len().saturating_add(request.max_tokens);
    let mut session = Session::new(device, model, attention, capacity, chunk, sampling, seed)?;
    generate_from(device, model, tokenizer, request, &mut session, on_fed, on_token)
}

/// [`generate`] with a session that has already been fed the first tokens of the prompt and has
/// capacity for the rest and the answer. The session must have the request's sampling, attention,
/// chunk and seed. The prefill time covers the rest of the prompt.
pub(crate) fn generate_from(
    device: &mut dyn Executor,
    model: &Llama,
    tokenizer: Option<&Tokenizer>,
    request: &GenerateRequest<'_>,
    session: &mut Session,
    on_fed: &mut dyn FnMut(usize),
    on_token: &mut dyn FnMut(NewToken<'_>) -> ControlFlow<()>,
) -> Result<Generated> {
    check(request, tokenizer)?;
    let GenerateRequest { prompt_ids, max_tokens, stop_texts, .. } = *request;
    let mut stop = request.stop.to_vec();
    if let Some(tokenizer) = tokenizer {
        // The text of a special token is never shown, so its id is what can be found.
        stop.extend(stop_texts.iter().filter_map(|t| tokenizer.token_to_id(t)).filter(|&id| tokenizer.is_special(id)));
    }
    let n_fed = session.cache.n_tokens();
    assert!(n_fed < prompt_ids.len(), "the prompt's last token is still to be fed");
    let start = Instant::now();
    session.feed_watched(device, model, &prompt_ids[n_fed..], on_fed)?;
    device.wait()?;
    let prefill_seconds = start.elapsed().as_secs_f64();
    let mut text = Text::new(tokenizer, prompt_ids, stop_texts);
    let mut ids = Vec::new();
    // The next step is queued before the token's id is known, so that a GPU does not wait for the
    // host. On the CPU this gains nothing and wastes a step when the text ends.
    let is_ahead = session.can_feed_drawn() && !device.runs_references();
    let mut drawn = session.start_draw(device)?;
    let stopped_by = loop {
        // Not before the first token: queueing the next step compiles its kernels, which takes
        // time.
        let is_next = is_ahead && !ids.is_empty() && ids.len() + 1 < max_tokens;
        let following = is_next.then(|| session.feed_drawn(device, model).and_then(|()| session.start_draw(device)));
        let id = drawn.wait()?[0];
        ids.push(id);
        let is_stop = stop.contains(&id);
        let is_last = is_stop || ids.len() == max_tokens;
        let piece = text.push(id, is_stop, is_last)?;
        let wish = on_token(NewToken { id, text: piece });
        if is_stop {
            break StoppedBy::StopToken;
        } else if text.is_ended {
            break StoppedBy::StopText;
        } else if is_last {
            break StoppedBy::MaxTokens;
        } else if wish.is_break() {
            break StoppedBy::Caller;
        }
        drawn = match following {
            Some(drawn) => drawn?, // an error matters only if the text continues
            None => {
                session.feed(device, model, &[id])?;
                session.start_draw(device)?
            }
        };
    };
    let n_fed = prompt_ids.len() + ids.len() - 1;
    Ok(Generated {
        generated_tokens: ids.len(),
        ids,
        text: text.all,
        prompt_tokens: prompt_ids.len(),
        prefill_seconds,
        decode_seconds: start.elapsed().as_secs_f64() - prefill_seconds,
        kv_entries: session.cache.entries_after(n_fed),
        kv_bytes: session.cache.bytes_after(n_fed),
        stopped_by,
    })
}

fn check(request: &GenerateRequest<'_>, tokenizer: Option<&Tokenizer>) -> Result<()> {
    if request.prompt_ids.is_empty() {
        return Err(Error::usage("the prompt is empty: a generation starts from at least one token"));
    }
    if request.max_tokens == 0 || request.chunk == 0 {
        return Err(Error::usage("`max_tokens` and `chunk` are at least 1"));
    }
    if request.stop_texts.iter().any(String::is_empty) {
        return Err(Error::usage("`stop` is an empty text, which every text contains: give the text to stop at"));
    }
    if tokenizer.is_none() && !request.stop_texts.is_empty() {
        return Err(Error::usage("`stop` compares texts, and the model has no tokenizer"));
    }
    Ok(())
}

/// The text generated so far.
struct Text<'a> {
    tokenizer: Option<&'a Tokenizer>,
    /// `None` without a tokenizer and after the end.
    stream: Option<DecodeStream<'a>>,
    stops: StopTexts<'a>,
    all: String,
    /// Whether a stop text came.
    is_ended: bool,
}

impl<'a> Text<'a> {
    fn new(tokenizer: Option<&'a Tokenizer>, prompt: &[u32], stop_texts: &'a [String]) -> Self {
        let stream = tokenizer.map(|t| t.stream_after(prompt));
        Self { tokenizer, stream, stops: StopTexts::new(stop_texts), all: String::new(), is_ended: false }
    }

    /// Takes a token and returns the new text. Stop tokens have no text, nor do ids beyond the
    /// tokenizer's vocabulary, with which models pad their tables to a round size.
    fn push(&mut self, id: u32, is_stop: bool, is_last: bool) -> Result<&str> {
        let shown = self.all.len();
        let is_text = !is_stop && self.tokenizer.is_some_and(|t| t.id_to_token(id).is_some());
        let mut piece = None;
        if let (true, Some(stream)) = (is_text, &mut self.stream) {
            piece = stream.push(id)?;
        }
        self.add(piece);
        if is_last
            && !self.is_ended
            && let Some(stream) = self.stream.take()
        {
            self.add(stream.finish()?);
            self.all.push_str(&self.stops.finish());
        }
        Ok(&self.all[shown..])
    }

    fn add(&mut self, piece: Option<String>) {
        let Some(piece) = piece.filter(|_| !self.is_ended) else { return };
        let passed = self.stops.push(&piece);
        self.all.push_str(&passed.text);
        self.is_ended = passed.is_end;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::attention::Lrsa;
    use crate::checkpoint::load::{Loaded, Train, load};
    use crate::checkpoint::weights::WeightSource;
    use crate::gpu::CpuExecutor;

    fn stories(device: &mut CpuExecutor<f32>) -> (Loaded, Tokenizer) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let source = WeightSource::open(&dir).unwrap();
        (load(device, &source, None, Train::Nothing).unwrap(), Tokenizer::from_dir(&dir).unwrap())
    }

    fn request<'a>(prompt_ids: &'a [u32], stop: &'a [u32]) -> GenerateRequest<'a> {
        let attention = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
        GenerateRequest {
            prompt_ids,
            max_tokens: 40,
            sampling: Sampling::default(),
            attention,
            chunk: 5,
            stop,
            stop_texts: &[],
            seed: 0,
        }
    }

    #[test]
    fn pieces_add_up_and_the_last_token_is_not_fed() {
        let mut device = CpuExecutor::<f32>::new();
        let (mut loaded, tokenizer) = stories(&mut device);
        let prompt = tokenizer.encode("Once upon a time", true).unwrap();
        let request = request(&prompt, &[]);
        let (mut pieces, mut ids) = (String::new(), Vec::new());
        let mut note = |t: NewToken<'_>| {
            pieces.push_str(t.text);
            ids.push(t.id);
            ControlFlow::Continue(())
        };
        let got = generate(&mut device, &mut loaded.model, Some(&tokenizer), &request, &mut note).unwrap();
        assert_eq!((pieces, ids), (got.text.clone(), got.ids.clone()));
        assert!(got.text.starts_with(", there was"), "{}", got.text);
        assert_eq!((got.generated_tokens, got.stopped_by), (40, StoppedBy::MaxTokens));
        assert_eq!(got.kv_entries, request.attention.cache_length(prompt.len() + 39));
        assert_eq!(got.kv_bytes as usize, got.kv_entries * 2 * 4 * 8 * 5 * 4, "K and V, 4 heads of 8, 5 layers, f32");

        let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
        let without = generate(&mut device, &mut loaded.model, None, &request, &mut silent).unwrap();
        assert_eq!((without.ids, without.text), (got.ids, String::new()));
    }

    #[test]
    fn stop_tokens_and_callers_end_it() {
        let mut device = CpuExecutor::<f32>::new();
        let (mut loaded, tokenizer) = stories(&mut device);
        let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
        let all = generate(&mut device, &mut loaded.model, None, &request(&[1], &[]), &mut silent).unwrap();
        let stop = [all.ids[7]];
        let first = all.ids.iter().position(|&id| id == stop[0]).unwrap();
        let request_with_stop = request(&[1], &stop);
        let got = generate(&mut device, &mut loaded.model, Some(&tokenizer), &request_with_stop, &mut silent).unwrap();
        assert_eq!((&got.ids[..], got.stopped_by), (&all.ids[..=first], StoppedBy::StopToken));
        assert_eq!(got.text, tokenizer.decode(&all.ids[..first], true).unwrap());
        let mut n = 0;
        let mut third = |_: NewToken<'_>| {
            n += 1;
            if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let got = generate(&mut device, &mut loaded.model, None, &request(&[1], &[]), &mut third).unwrap();
        assert_eq!((got.ids.len(), got.stopped_by, got.kv_entries), (3, StoppedBy::Caller, 3));
    }

    #[test]
    fn stop_texts_end_it_within_tokens_and_are_never_shown() {
        let mut device = CpuExecutor::<f32>::new();
        let (mut loaded, tokenizer) = stories(&mut device);
        let prompt = tokenizer.encode("Once upon a time", true).unwrap();
        let plain = request(&prompt, &[]);
        let mut run = |request: &GenerateRequest<'_>| {
            let mut shown = String::new();
            let mut note = |t: NewToken<'_>| {
                shown.push_str(t.text);
                ControlFlow::Continue(())
            };
            let got = generate(&mut device, &mut loaded.model, Some(&tokenizer), request, &mut note).unwrap();
            assert_eq!(shown, got.text);
            got
        };
        let all = run(&plain);
        for from in [0, 3, 10, 21] {
            let stop = [all.text[from..from + 7].to_owned(), "never in a story".to_owned()];
            let got = run(&GenerateRequest { stop_texts: &stop, ..plain.clone() });
            assert_eq!((got.text.as_str(), got.stopped_by), (&all.text[..from], StoppedBy::StopText));
            assert_eq!(got.ids, all.ids[..got.ids.len()]);
            assert!(tokenizer.decode(&[&prompt, &got.ids[..]].concat(), true).unwrap().contains(&stop[0]));
        }
        // What could have become a stop text is shown at the end.
        let last = all.text.chars().last().unwrap();
        let got = run(&GenerateRequest { stop_texts: &[format!("{last}~")], ..plain.clone() });
        assert_eq!((got.text, got.stopped_by), (all.text, StoppedBy::MaxTokens));
        // The name of a special token stands for the token.
        let eos = tokenizer.id_to_token(tokenizer.eos().unwrap_or(2)).unwrap();
        assert!(tokenizer.is_special(tokenizer.token_to_id(&eos).unwrap()));
        let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
        let texts = [eos];
        let by_name = GenerateRequest { stop_texts: &texts, max_tokens: 400, ..plain.clone() };
        let by_id = GenerateRequest { stop: &[2], max_tokens: 400, ..plain.clone() };
        let [a, b] = [by_name, by_id]
            .map(|r| generate(&mut device, &mut loaded.model, Some(&tokenizer), &r, &mut silent).unwrap());
        assert_eq!((a.ids, a.stopped_by), (b.ids, b.stopped_by));
    }

    #[test]
    fn what_cannot_be_generated_is_refused() {
        let mut device = CpuExecutor::<f32>::new();
        let (mut loaded, tokenizer) = stories(&mut device);
        let good = request(&[1], &[]);
        for bad in [
            request(&[], &[]),
            GenerateRequest { max_tokens: 0, ..good.clone() },
            GenerateRequest { chunk: 0, ..good.clone() },
            GenerateRequest { prompt_ids: &[1, 512], ..good.clone() },
            GenerateRequest { stop_texts: &["a".into()], ..good.clone() },
        ] {
            let mut never = |_: NewToken<'_>| panic!("a refused request generates nothing");
            assert!(generate(&mut device, &mut loaded.model, None, &bad, &mut never).is_err());
        }
        let empty = GenerateRequest { stop_texts: &[String::new()], ..good };
        let mut never = |_: NewToken<'_>| panic!("a refused request generates nothing");
        let e = generate(&mut device, &mut loaded.model, Some(&tokenizer), &empty, &mut never).unwrap_err();
        assert!(e.to_string().contains("`stop` is an empty text"));
    }
}
