//! The flags of `longreach chat`, and its loop.

use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::editor::{LineEditor, history_path};
use super::engine::Engine;
use super::input::Input;
use super::lines::{Lines, Said};
use super::machine::{Chat, Next};
use super::saved;
use super::screen::{Screen, Streams};
use super::settings::Settings;
use super::signals;
use super::turns::Turns;
use crate::checkpoint::generation_config::GenerationConfig;
use crate::cli::args::{AttentionArgs, AttentionName, ComputeArgs, ModelArgs};
use crate::cli::chat_args::{ChatArgs, without_template};
use crate::cli::output::note;
use crate::cli::sampling_args::SamplingArgs;
use crate::error::{Error, ErrorKind, Result};

/// What to know about a model without a chat template.
pub const NO_TEMPLATE: &str = "note: this model has no chat template: it continues what you write, as plain text";

/// Flags of `chat`.
#[derive(Args, Debug)]
pub struct ChatCommand {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    attention: AttentionArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Maximum tokens of an answer [default: 2048, or as many as the model's positions allow]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Seed of the sampler [default: random; /seed shows it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Keep no history of lines
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    device: ComputeArgs,
}

impl ChatCommand {
    /// Opens the model, and the saved conversation with what the flags change.
    pub(super) fn open(&self, screen: &mut dyn Screen) -> Result<Chat> {
        let wished = self.sampling.wished();
        GenerationConfig::default().sampling(&wished)?; // before a model is downloaded
        if self.max_tokens == Some(0) {
            return Err(Error::usage("--max-tokens must be at least 1"));
        }
        self.attention.check()?;
        let said = self.turns()?;
        let mut engine = Engine::open(self.model_args()?, self.device.clone())?;
        let files = engine.files()?;
        if self.chat.is_set() && files.template.is_none() {
            return Err(without_template("this model has none"));
        }
        if let Some(said) = files.generation.note(&wished) {
            screen.note(&format!("note: {said}"));
        }
        if files.template.is_none() {
            screen.note(NO_TEMPLATE);
        }
        let attention = self.attention.resolve(files.recorded, AttentionName::Dense)?;
        let settings = Settings { wished, max_tokens: self.max_tokens, ..Settings::new(self.new_seed()) };
        let mut chat = Chat::new(engine, said.clone(), attention, settings.clone());
        if let Some(path) = &self.resume {
            chat.load(path, screen)?;
            self.change(&mut chat, said, settings)?;
        }
        let sampling = chat.engine.files()?.generation.conversational(&chat.settings.wished)?;
        self.sampling.note_if_greedy(&sampling, self.seed.is_some()).iter().for_each(|said| screen.note(said));
        Ok(chat)
    }

    /// The flags of the model, with the RoPE scaling of a conversation that was held with it.
    fn model_args(&self) -> Result<ModelArgs> {
        let mut args = self.model.clone();
        if let (None, Some(path)) = (args.rope_scaling, &self.resume) {
            let held = saved::identity(path)?;
            args.rope_scaling = held.rope_scaling.filter(|_| held.model == args.model);
        }
        Ok(args)
    }

    /// An empty conversation with the system message, tools and variables of the flags.
    fn turns(&self) -> Result<Turns> {
        let conversation = self.chat.conversation("")?;
        let system = conversation.messages.iter().find(|message| message.role() == "system");
        Ok(Turns {
            system: system.and_then(|message| message.text()).map(str::to_string),
            tools: conversation.tools,
            variables: conversation.variables,
            ..Turns::default()
        })
    }

    fn new_seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()))
    }

    /// Puts what the flags say in place of what a saved conversation says.
    fn change(&self, chat: &mut Chat, said: Turns, settings: Settings) -> Result<()> {
        let AttentionArgs { attention, sink, lag, keep } = &self.attention;
        if attention.is_some() || sink.is_some() || lag.is_some() || keep.is_some() {
            chat.attention = self.attention.resolve(Some(chat.attention), AttentionName::Dense)?;
        }
        if said.system.is_some() {
            chat.turns.system = said.system;
        }
        if said.tools.is_some() {
            chat.turns.tools = said.tools;
        }
        if !said.variables.is_empty() {
            chat.turns.variables = said.variables;
        }
        if settings.wished != Default::default() {
            chat.settings.wished = settings.wished;
        }
        if settings.max_tokens.is_some() {
            chat.settings.max_tokens = settings.max_tokens;
        }
        if self.seed.is_some() {
            (chat.settings.seed, chat.settings.n_answers) = (settings.seed, 0);
        }
        Ok(())
    }

    /// The line editor on a terminal, else the lines of standard input.
    fn input(&self, has_colours: bool) -> Result<Input> {
        let stdin = std::io::stdin();
        if stdin.is_terminal() && std::io::stdout().is_terminal() {
            let history = if self.no_history { None } else { history_path() };
            return Ok(Input::Editor(Box::new(LineEditor::open(history, has_colours)?)));
        }
        Ok(Input::Lines(Lines(Box::new(BufReader::new(stdin)))))
    }
}

/// Runs the command.
pub fn run(args: &ChatCommand) -> Result<()> {
    let mut screen = Streams::open();
    let mut chat = args.open(&mut screen)?;
    let mut input = args.input(screen.has_colours())?;
    signals::catch()?;
    if input.is_editor() {
        screen.note(&format!("{}; {}. /help lists the commands", chat.engine.description()?, chat.attention));
    }
    let n_failed = talk(&mut chat, &mut input, &mut screen)?;
    // In a script a failed line counts; a person has read what failed.
    if n_failed > 0 && !input.is_editor() {
        return Err(Error::new(format!("{n_failed} of the lines failed")));
    }
    Ok(())
}

/// Takes texts until the last. Returns how many failed.
fn talk(chat: &mut Chat, input: &mut Input, screen: &mut Streams) -> Result<usize> {
    let mut n_failed = 0;
    loop {
        signals::begin_waiting();
        if signals::is_ending() {
            return Err(Error::of_kind(ErrorKind::Interrupted, "ended by a signal"));
        }
        let text = match input.next()? {
            Said::Text(text) => text,
            Said::Nothing => continue,
            Said::End => return Ok(n_failed),
            Said::Refused(e) => {
                n_failed += 1;
                note(&format!("error: {e}"));
                continue;
            }
        };
        signals::begin_work();
        match chat.take(&text, screen) {
            Ok(Next::Stay) => {}
            Ok(Next::Leave) => return Ok(n_failed),
            Err(e) => {
                n_failed += 1;
                note(&format!("error: {e}"));
            }
        }
        screen.check()?;
    }
}
