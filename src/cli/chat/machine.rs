//! A conversation as a state machine: takes lines, and says to a screen what came of them.
//!
//! It knows no terminal. An error leaves the conversation as it was.

use std::ops::ControlFlow;

use super::command::{COMMANDS, Command, is_command, parse};
use super::engine::Engine;
use super::reports::{cached, legend, runs};
use super::screen::Screen;
use super::settings::Settings;
use super::turns::Turns;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::grouped::{grouped, tokens};

/// A conversation with its model.
pub struct Chat {
    pub(super) engine: Engine,
    pub(super) turns: Turns,
    pub(super) attention: Attention,
    pub(super) settings: Settings,
}

/// What follows a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Stay,
    Leave,
}

impl Chat {
    /// A conversation that has not begun, with the tools, variables and system message of `turns`.
    pub fn new(engine: Engine, turns: Turns, attention: Attention, settings: Settings) -> Self {
        Self { engine, turns, attention, settings }
    }

    /// Takes a text: a command or a question.
    pub fn take(&mut self, text: &str, screen: &mut dyn Screen) -> Result<Next> {
        if text.trim().is_empty() {
            return Ok(Next::Stay);
        }
        if !is_command(text) {
            // A blank in front of a slash says that the text is no command.
            let question = text.strip_prefix(' ').filter(|rest| rest.starts_with('/')).unwrap_or(text);
            self.ask(question, screen)?;
            return Ok(Next::Stay);
        }
        self.obey(parse(text)?, screen)
    }

    fn obey(&mut self, command: Command, screen: &mut dyn Screen) -> Result<Next> {
        match command {
            Command::Quit => return Ok(Next::Leave),
            Command::Help => help(screen),
            Command::Document(path) => self.add_document(&path, screen)?,
            Command::Regenerate => self.regenerate(screen)?,
            Command::Continue => self.go_on(screen)?,
            Command::Undo => self.undo(screen)?,
            Command::Clear => self.clear(screen),
            Command::System(text) => self.set_system(text, screen)?,
            Command::Attention(name) => self.set_attention(name.as_deref(), screen)?,
            Command::Kept => self.show_kept(screen)?,
            Command::Tokens => self.show_tokens(screen)?,
            Command::Sampling(words) => self.set_sampling(&words, screen)?,
            Command::Seed(seed) => self.set_seed(seed, screen),
            Command::Model(model) => self.change_model(model, screen)?,
            Command::Adapter(adapter) => self.change_adapter(adapter, screen)?,
            Command::Save(path) => self.save(&path, screen)?,
            Command::Load(path) => self.load(&path, screen)?,
        }
        Ok(Next::Stay)
    }

    fn undo(&mut self, screen: &mut dyn Screen) -> Result<()> {
        let taken = self.turns.unanswered.take().or_else(|| self.turns.turns.pop());
        let Some(turn) = taken else { return Err(Error::usage("there is nothing to take back")) };
        self.turns.is_cut = false;
        screen.note(&format!("taken back: {}", excerpt(&turn.question)));
        Ok(())
    }

    fn clear(&mut self, screen: &mut dyn Screen) {
        self.turns.clear();
        self.engine.forget();
        screen.note("begun anew");
    }

    fn show_kept(&mut self, screen: &mut dyn Screen) -> Result<()> {
        let mut watch = |done, total| {
            screen.read(done, total);
            if screen.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let map = self.engine.kept(&mut watch);
        screen.end_answer();
        let Some(map) = map? else {
            screen.note("stopped before all tokens were read: /kept starts anew");
            return Ok(());
        };
        if map.compressed_layers().next().is_none() {
            return Err(Error::usage("every layer of this model has a sliding window, so no layer is compressed"));
        }
        let shares = map.shares(None, None)?;
        screen.marked(&runs(&map, &shares));
        screen.note(&legend(&map, &shares, screen.has_colours()));
        Ok(())
    }

    fn show_tokens(&mut self, screen: &mut dyn Screen) -> Result<()> {
        let limit = self.engine.max_positions()?;
        let (n, cache) = (self.n_tokens()?, self.engine.cache_size());
        let left = limit.saturating_sub(n);
        screen.tell(&format!("conversation: {} of {}, {} left", tokens(n), grouped(limit), grouped(left)));
        screen.tell(&cache.map_or("cache: empty".into(), |cache| cached(&cache)));
        if !self.turns.document.is_empty() {
            let n = self.engine.files()?.tokenizer()?.encode(&self.turns.document, false)?.len();
            screen.tell(&format!("documents for the next question: {}", tokens(n)));
        }
        Ok(())
    }

    /// Tokens of the conversation: those read and said, or those that the next question will read.
    fn n_tokens(&mut self) -> Result<usize> {
        let n = self.engine.n_tokens();
        let Some((last, before)) = self.turns.turns.split_last().filter(|_| n == 0) else { return Ok(n) };
        let files = self.engine.files()?;
        let text = self.turns.prompt(files.template.as_ref(), before.len(), last)?;
        Ok(files.tokenizer()?.encode(&text, false)?.len())
    }
}

fn help(screen: &mut dyn Screen) {
    let call = |name: &str, usage: &str| format!("/{name} {usage}");
    let width = COMMANDS.iter().map(|entry| call(entry.name, entry.usage).chars().count()).max().unwrap_or(0);
    for entry in COMMANDS {
        screen.tell(&format!("{:width$}  {}", call(entry.name, entry.usage), entry.help));
    }
    screen.tell("\nA line that ends in \\ continues, and \"\"\" opens and closes a block of lines.");
    screen.tell("Ctrl-C stops an answer. A blank before a slash makes the line a question.");
}

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.chars().count() > MOST {
        true => line.chars().take(MOST).chain(['…']).collect(),
        false => line,
    }
}
