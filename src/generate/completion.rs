//! A text in progress: takes the drawn tokens, and says when the text ends.

use std::ops::ControlFlow;

use super::request::{GenerateRequest, Generated, NewToken, StoppedBy};
use crate::attention::Cache;
use crate::error::Result;
use crate::text::decode_stream::DecodeStream;
use crate::text::stop_text::StopTexts;
use crate::text::tokenizer::Tokenizer;

/// The tokens generated so far, and the rules that end them.
pub(super) struct Completion<'a> {
    prompt_tokens: usize,
    max_tokens: usize,
    stop: Vec<u32>,
    ids: Vec<u32>,
    text: Text<'a>,
}

impl<'a> Completion<'a> {
    /// Nothing yet, for a request that has passed [`GenerateRequest::check`].
    pub(super) fn new(request: &GenerateRequest<'_>, tokenizer: Option<&'a Tokenizer>) -> Self {
        let GenerateRequest { prompt_ids, max_tokens, stop_texts, shown, .. } = *request;
        let mut stop = request.stop.to_vec();
        if let Some(tokenizer) = tokenizer {
            // The text of a special token is never shown, so its id is what can be found.
            let named = stop_texts.iter().filter_map(|t| tokenizer.token_to_id(t));
            stop.extend(named.filter(|&id| tokenizer.is_special(id)));
        }
        let text = Text::new(tokenizer, prompt_ids, stop_texts, shown);
        Self { prompt_tokens: prompt_ids.len(), max_tokens, stop, ids: Vec::new(), text }
    }

    /// Number of tokens so far.
    pub(super) fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Takes the next token, with its logits if they are kept, and passes it on; returns what ends
    /// the text, if this token does.
    pub(super) fn take(
        &mut self,
        id: u32,
        logits: Option<&[f32]>,
        on_token: &mut dyn FnMut(NewToken<'_>) -> ControlFlow<()>,
    ) -> Result<Option<StoppedBy>> {
        self.ids.push(id);
        let is_stop = self.stop.contains(&id);
        let is_last = is_stop || self.ids.len() == self.max_tokens;
        let piece = self.text.push(id, is_stop, is_last)?;
        let wish = on_token(NewToken { id, text: piece, logits });
        Ok(if is_stop {
            Some(StoppedBy::StopToken)
        } else if self.text.is_ended {
            Some(StoppedBy::StopText)
        } else if is_last {
            Some(StoppedBy::MaxTokens)
        } else {
            wish.is_break().then_some(StoppedBy::Caller)
        })
    }

    /// Passes on the text that is held back, with the last token, because none follows.
    pub(super) fn close(&mut self, on_token: &mut dyn FnMut(NewToken<'_>) -> ControlFlow<()>) -> Result<()> {
        let (text, id) = (self.text.close()?, self.ids.last());
        if let Some(&id) = id.filter(|_| !text.is_empty()) {
            _ = on_token(NewToken { id, text, logits: None });
        }
        Ok(())
    }

    /// The result, with the seconds of prefill and decode.
    pub(super) fn finish(self, cache: &Cache, stopped_by: StoppedBy, [prefill, decode]: [f64; 2]) -> Generated {
        let n_fed = self.prompt_tokens + self.ids.len().max(1) - 1;
        Generated {
            generated_tokens: self.ids.len(),
            ids: self.ids,
            text: self.text.all,
            prompt_tokens: self.prompt_tokens,
            prefill_seconds: prefill,
            decode_seconds: decode,
            kv_entries: cache.entries_after(n_fed),
            kv_bytes: cache.bytes_after(n_fed),
            stopped_by,
            constraint_failure: None,
        }
    }
}

/// The text generated so far.
struct Text<'a> {
    tokenizer: Option<&'a Tokenizer>,
    /// `None` without a tokenizer and after the end.
    stream: Option<DecodeStream<'a>>,
    /// Special tokens whose names are part of the text.
    shown: Vec<u32>,
    stops: StopTexts,
    all: String,
    /// Whether a stop text came.
    is_ended: bool,
}

impl<'a> Text<'a> {
    fn new(tokenizer: Option<&'a Tokenizer>, prompt: &[u32], stop_texts: &[String], shown: &[u32]) -> Self {
        let stream = tokenizer.map(|t| t.stream_after(prompt));
        let shown = shown.to_vec();
        Self { tokenizer, stream, shown, stops: StopTexts::new(stop_texts), all: String::new(), is_ended: false }
    }

    /// Takes a token and returns the new text. Stop tokens have no text, nor do ids beyond the
    /// tokenizer's vocabulary, with which models pad their tables to a round size.
    fn push(&mut self, id: u32, is_stop: bool, is_last: bool) -> Result<&str> {
        let shown = self.all.len();
        let is_text = !is_stop && self.tokenizer.is_some_and(|t| t.id_to_token(id).is_some());
        if let Some(tokenizer) = self.tokenizer.filter(|t| is_text && self.shown.contains(&id) && t.is_special(id)) {
            let held = self.stream.replace(tokenizer.stream()).map(DecodeStream::finish).transpose()?.flatten();
            self.add(held);
            self.add(tokenizer.id_to_token(id));
        } else if let (true, Some(stream)) = (is_text, &mut self.stream) {
            let piece = stream.push(id)?;
            self.add(piece);
        }
        if is_last {
            self.close()?;
        }
        Ok(&self.all[shown..])
    }

    /// Ends the text and returns what was held back.
    fn close(&mut self) -> Result<&str> {
        let shown = self.all.len();
        if let Some(stream) = self.stream.take().filter(|_| !self.is_ended) {
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
