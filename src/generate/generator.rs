//! The generation loop of the command line, the demo and the app: prefill, draw, emit, feed.
//!
//! It takes token ids and returns token ids, with their text if a tokenizer is given. It handles no
//! chat templates and prints nothing. [`Session`] runs one step; [`crate::attention`] decides what
//! the cache keeps.

use std::ops::ControlFlow;
use std::time::Instant;

use super::completion::Completion;
use super::request::{GenerateRequest, Generated, NewToken};
use crate::error::Result;
use crate::gpu::Executor;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

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
    request.check(tokenizer)?;
    let mut session = request.session(device, model)?;
    let mut completion = Completion::new(request, tokenizer);
    let start = Instant::now();
    session.feed_watched(device, model, request.prompt_ids, on_fed)?;
    device.wait()?;
    let prefill_seconds = start.elapsed().as_secs_f64();
    // The next step is queued before the token's id is known, so that a GPU does not wait for the
    // host. On the CPU this gains nothing and wastes a step when the text ends.
    let is_ahead = session.can_feed_drawn() && !device.runs_references();
    let mut drawn = session.start_draw(device)?;
    let stopped_by = loop {
        // Not before the first token: queueing the next step compiles its kernels, which takes
        // time.
        let n = completion.n_tokens();
        let is_next = is_ahead && n > 0 && n + 1 < request.max_tokens;
        let following = is_next.then(|| session.feed_drawn(device, model).and_then(|()| session.start_draw(device)));
        let id = drawn.wait()?[0];
        session.take(id)?;
        if let Some(stopped_by) = completion.take(id, None, on_token)? {
            break stopped_by;
        }
        drawn = match following {
            Some(drawn) => drawn?, // an error matters only if the text continues
            None => {
                session.feed(device, model, &[id])?;
                session.start_draw(device)?
            }
        };
    };
    let decode_seconds = start.elapsed().as_secs_f64() - prefill_seconds;
    Ok(completion.finish(&session.cache, stopped_by, [prefill_seconds, decode_seconds]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::request::StoppedBy;
    use super::*;
    use crate::attention::{Attention, Lrsa};
    use crate::checkpoint::load::{Loaded, Train, load};
    use crate::checkpoint::weights::WeightSource;
    use crate::gpu::CpuExecutor;
    use crate::kernels::sample::Sampling;

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
            shown: &[],
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
