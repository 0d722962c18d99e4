//! The training loss of one flat batch: next-token cross-entropy over the labelled tokens, with a
//! teacher the divergence from it over all tokens, or the loss of preference pairs.

use std::collections::HashSet;
use std::rc::Rc;

use super::distill::Teacher;
use super::loss_rows::{LossRows, Sums};
use super::preference::{PairCounts, Preference, UploadedPairs};
use crate::attention::{Attention, TrainingLayouts};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Executor, Kind, Span, upload_words};
use crate::kernels::distill::Scales;
use crate::kernels::embedding::TokenIndex;
use crate::kernels::neftune::Noise;
use crate::model::block::{KeptLog, TrainingContext};
use crate::model::config::ModelConfig;
use crate::model::llama::Llama;
use crate::nn::{Adapters, Dropout};
use crate::tensor::Tensor;

/// Settings that are the same for all batches.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Dense or LRSA, for the layers with full attention.
    pub attention: Attention,
    /// Factor of the summed cross-entropy: its weight / labelled tokens of the whole optimiser step.
    pub scale: f32,
    /// Dropout of the adapters and noise of the embeddings, `None` in evaluation.
    pub dropout: Option<Dropout>,
    /// The teacher, and the factor of the summed divergence from it: its weight / positions of the
    /// whole optimiser step that have a next token.
    pub distill: Option<(Teacher, f32)>,
    /// The loss of preference pairs instead of cross-entropy, and the counts of the whole optimiser
    /// step.
    pub preference: Option<(Preference, PairCounts)>,
    /// Where to copy the selected indices, if wanted.
    pub kept: Option<KeptLog>,
}

impl Objective {
    /// Whether a batch has any part in the loss.
    pub(super) fn trains(&self, batch: &Batch) -> bool {
        batch.n_targets > 0 || (self.distill.is_some() && batch.ids.len() > batch.sequences.len())
    }
}

/// A batch on the device.
#[derive(Debug)]
pub struct UploadedBatch {
    ids: TokenIndex,
    context: TrainingContext,
    /// The teacher's forward, and the factor of the divergence from it.
    teacher: Option<(TrainingContext, f32)>,
    /// `None` if there are none.
    rows: Option<LossRows>,
    /// The pairs of preference training, which then has no other loss.
    pairs: Option<UploadedPairs>,
}

impl UploadedBatch {
    /// Checks and uploads a batch.
    pub fn new(device: &mut dyn Executor, model: &mut Llama, batch: &Batch, objective: &Objective) -> Result<Self> {
        model.check_ids(&batch.ids)?;
        model.reserve_positions(device, batch.longest)?;
        let ids = TokenIndex::upload(device, &batch.ids, model.trains_embedding())?;
        let layers = model.config.layer_attentions(objective.attention);
        let layouts = TrainingLayouts::upload(device, &layers, model.heads(), &batch.sequences)?;
        let positions: Vec<u32> = batch.sequences.iter().flat_map(|&(_, n)| 0..n as u32).collect();
        let context = TrainingContext {
            layouts: Rc::new(layouts),
            positions: upload_words(device, "positions", &positions)?,
            rotations: model.rotations(),
            adapters: Adapters::On(objective.dropout),
            noise: noise(device, objective.dropout, batch.sequences.iter().map(|&(_, n)| (n, n)), &model.config)?,
            kept: objective.kept.clone(),
        };
        let teacher = match objective.distill {
            None => None,
            Some((teacher, scale)) => {
                let layers = model.config.layer_attentions(Attention::Dense);
                let layouts = TrainingLayouts::upload(device, &layers, model.heads(), &batch.sequences)?;
                let (layouts, adapters) = (Rc::new(layouts), teacher.adapters());
                Some((TrainingContext { layouts, adapters, noise: None, kept: None, ..context.clone() }, scale))
            }
        };
        let ends: HashSet<usize> = batch.sequences.iter().map(|&(start, n)| start + n - 1).collect();
        let rows = match objective.preference {
            Some(_) => None,
            None => LossRows::upload(device, &batch.labels_shifted, |row| teacher.is_some() && !ends.contains(&row))?,
        };
        let pairs = objective.preference.map(|preference| UploadedPairs::new(device, batch, preference)).transpose()?;
        Ok(Self { ids, context, teacher, rows, pairs })
    }

    /// Appends the forward pass of the model: final hidden states [tokens, hidden].
    pub fn hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Var> {
        model.forward(tape, &self.ids, &self.context)
    }

    /// Appends the forward pass of the teacher to an inference tape: its final hidden states in the
    /// rows of the loss, or `None` without a teacher.
    pub fn teacher_hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Option<Tensor>> {
        let Some((context, _)) = &self.teacher else { return Ok(None) };
        let hidden = model.forward(tape, &self.ids, context)?;
        Ok(Some(self.rows()?.of(tape, &hidden)?.tensor))
    }

    /// Appends the forward pass of the reference model to an inference tape: its losses in the rows
    /// of preference pairs, or `None` where the loss has no reference.
    pub(super) fn reference_losses(&self, tape: &mut Tape, model: &Llama, max_elements: usize) -> Result<Option<Span>> {
        let Some(pairs) = self.pairs.as_ref().filter(|pairs| pairs.has_reference()) else { return Ok(None) };
        let context =
            TrainingContext { adapters: Adapters::Reference, noise: None, kept: None, ..self.context.clone() };
        let hidden = model.forward(tape, &self.ids, &context)?;
        pairs.losses(tape, model, &hidden, max_elements).map(Some)
    }

    /// Appends the loss [1, 1] of preference pairs, and adds it and their statistics to the sums.
    /// `None` for other batches.
    pub(super) fn pair_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, reference): (&Var, Option<&Span>),
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Option<Var>> {
        let loss = |pairs: &UploadedPairs| pairs.summed_loss(tape, model, (hidden, reference), sums, max_elements);
        self.pairs.as_ref().map(loss).transpose()
    }

    fn rows(&self) -> Result<&LossRows> {
        self.rows
            .as_ref()
            .ok_or_else(|| Error::new("no token of the batch has a label, so there is nothing to train on"))
    }

    /// Appends the loss [1, 1] of hidden states: scale · Σ −log p(label). Fails if no token has a
    /// label.
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        self.rows()?.loss(tape, model, hidden, scale, max_elements)
    }

    /// Appends the loss [1, 1] of hidden states, and adds it to the sums. `teacher` are the hidden
    /// states of [`UploadedBatch::teacher_hidden`].
    pub(super) fn summed_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, teacher): (&Var, Option<&Tensor>),
        scale: f32,
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Var> {
        let scales = Scales { ce: scale, kl: self.teacher.as_ref().map_or(0.0, |t| t.1) };
        self.rows()?.summed_loss(tape, model, (hidden, teacher), scales, sums, max_elements)
    }
}

/// NEFTune's noise of a forward over parts of sequences: the tokens of each part, and the length of
/// its sequence. `None` without noise.
pub(super) fn noise(
    device: &mut dyn Executor,
    dropout: Option<Dropout>,
    parts: impl Iterator<Item = (usize, usize)>,
    config: &ModelConfig,
) -> Result<Option<Noise>> {
    let Some(Dropout { seed, step, first_token, neftune }) = dropout.filter(|d| d.neftune > 0.0) else {
        return Ok(None);
    };
    let alpha = f64::from(neftune) * config.noise_scale;
    let magnitude = |length: usize| (alpha / (length as f64 * config.hidden as f64).sqrt()) as f32;
    let magnitudes: Vec<f32> = parts.flat_map(|(n, length)| std::iter::repeat_n(magnitude(length), n)).collect();
    let span = Buffer::persistent("noise of the embeddings", Kind::Real, magnitudes.len()).span();
    device.write_real(&span, &magnitudes)?;
    Ok(Some(Noise { key: [seed, step], first_token, magnitudes: span }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::CpuExecutor;

    /// arXiv 2310.05914: alpha / √(L · d), for the tokens of each sequence.
    #[test]
    fn the_noise_of_a_token_depends_on_the_length_of_its_sequence() {
        let device = &mut CpuExecutor::<f32>::new();
        let dropout = Dropout { seed: 1, step: 2, first_token: 7, neftune: 5.0 };
        let config = ModelConfig { hidden: 32, ..ModelConfig::default() };
        let parts = || [(2, 2), (3, 100)].into_iter();
        let made = noise(device, Some(dropout), parts(), &config).unwrap().unwrap();
        assert_eq!((made.key, made.first_token), ([1, 2], 7));
        let [short, long] = [64.0f64, 3200.0].map(|n| (5.0 / n.sqrt()) as f32);
        assert_eq!(device.read_real(&made.magnitudes).unwrap(), [short, short, long, long, long]);
        // Granite multiplies embeddings and noise by 12.
        let granite = ModelConfig { embed_scale: 12.0, noise_scale: 12.0, ..config.clone() };
        let made = noise(device, Some(dropout), parts(), &granite).unwrap().unwrap();
        let [short, long] = [64.0f64, 3200.0].map(|n| (60.0 / n.sqrt()) as f32);
        assert_eq!(device.read_real(&made.magnitudes).unwrap(), [short, short, long, long, long]);
        let none = Dropout { neftune: 0.0, ..dropout };
        assert!(noise(device, Some(none), parts(), &config).unwrap().is_none());
        assert!(noise(device, None, parts(), &config).unwrap().is_none());
    }
}
