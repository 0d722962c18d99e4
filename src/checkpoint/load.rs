//! Loads a model from its files to a device.
//!
//! Frozen weights keep the format of the file (16 bits or quantised). Trained weights are in f32
//! arenas.

use std::collections::HashMap;
use std::rc::Rc;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::adapter_config::{AdaptedModule, AdapterConfig};
use super::adapter_file::{Adapter, AdapterPair, magnitude_name, tensor_names};
use super::families;
use super::weight_names::{Linear as LinearName, NormNames, Weight, linears, weights};
use super::weights::WeightSource;
use crate::autograd::Param;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::{ELEMENT_ALIGNMENT, Executor, Recording};
use crate::kernels::elementwise::add_into;
use crate::model::block::Block;
use crate::model::config::ModelConfig;
use crate::model::llama::{Llama, ModelRope};
use crate::nn::{Dora, Fused, Joint, Linear, Lora, Stacked};

use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;
use crate::tensor::{Arena, Format, Group, Parameters, Spec, Tensor, Trainable};

/// Which tensors weight decay applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Every trained tensor, as PyTorch does by default
    All,
    /// Matrices only: not norms and biases
    Matrices,
}

/// The tensors to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Train {
    /// Nothing: inference.
    Nothing,
    /// The adapter's tensors.
    Adapter(Decay),
    /// The adapter's tensors, beside a frozen copy of them: [`crate::nn::Adapters::Reference`].
    AdapterWithReference(Decay),
    /// Every weight of the model.
    All(Decay),
}

/// A loaded model with its trained tensors.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Llama,
    /// Values and gradients of the trained tensors.
    pub arena: Option<Arena>,
    /// The trained tensors in the model's order, with their names in checkpoint files.
    pub trainables: Vec<Trainable>,
}

impl Loaded {
    /// The parameters of an optimiser. Fails if the model was loaded without trained tensors.
    pub fn parameters(&self) -> Result<Parameters<'_>> {
        let arena = self.arena.as_ref();
        let arena = arena.ok_or_else(|| Error::new("the model was loaded without trainable parameters"))?;
        Ok(Parameters { arena, trainables: &self.trainables })
    }
}

impl Adapter {
    /// A new adapter with PEFT's initialisation: A uniform in ±1/√in, B zero, so that the model
    /// starts unchanged.
    pub fn fresh(config: AdapterConfig, model: &ModelConfig, seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pairs = Vec::new();
        for AdaptedModule { path, n_in, n_out, rank, scale } in config.modules(model)? {
            let bound = 1.0 / (n_in as f32).sqrt();
            let a: Vec<f32> = (0..rank * n_in).map(|_| rng.random_range(-bound..bound)).collect();
            pairs.push(AdapterPair {
                module: path,
                a: HostTensor::from_f32(&[rank, n_in], &a),
                b: HostTensor::from_f32(&[n_out, rank], &vec![0.0; n_out * rank]),
                magnitude: None,
                scale,
            });
        }
        Ok(Self { config, pairs, saved: vec![] })
    }
}

/// Loads a model with an optional adapter.
pub fn load(
    device: &mut dyn Executor,
    source: &WeightSource,
    adapter: Option<&Adapter>,
    train: Train,
) -> Result<Loaded> {
    load_watched(device, source, adapter, train, &|| false)
}

/// [`load`], which asks `stops` before each layer whether to give up. Then it fails with
/// [`ErrorKind::Interrupted`].
pub fn load_watched(
    device: &mut dyn Executor,
    source: &WeightSource,
    adapter: Option<&Adapter>,
    train: Train,
    stops: &dyn Fn() -> bool,
) -> Result<Loaded> {
    let mut config = source.config().clone();
    if matches!(train, Train::All(_)) && families::of(config.architecture).scales_embedding {
        config.embed_scale = families::embed_scale(config.hidden, DType::F32); // trained weights are f32
    }
    let specs = match train {
        Train::Nothing => vec![],
        Train::Adapter(decay) | Train::AdapterWithReference(decay) => {
            adapter.map_or(vec![], |adapter| adapter_specs(&config, adapter, decay))
        }
        Train::All(decay) => model_specs(&config, decay),
    };
    let (mut arena, mut trainables) = (None, vec![]);
    if !specs.is_empty() {
        let (made, list) = Arena::new(&specs, &device.limits())?;
        made.zero(device)?;
        (arena, trainables) = (Some(made), list);
    }
    let by_name = trainables.iter().map(|t| (t.name.clone(), t.clone())).collect();
    let keeps_reference = matches!(train, Train::AdapterWithReference(_));
    let mut loader = Loader { device, source, adapter, keeps_reference, by_name, shared: None, stops };
    let model = loader.model(config).context("loading the model")?;
    Ok(Loaded { model, arena, trainables })
}

/// Weights of one base model on a device, which models with different adapters share.
#[derive(Debug, Default)]
pub struct SharedWeights {
    by_name: HashMap<String, Tensor>,
    /// Stacked weights, by the name of the first.
    stacked: HashMap<String, Tensor>,
}

/// Loads a model for inference. Weights that another model loaded into `shared` are used again; the
/// adapter and the weights that it replaces are its own. All calls take the same source and device.
pub fn load_shared(
    device: &mut dyn Executor,
    source: &WeightSource,
    adapter: Option<&Adapter>,
    shared: &mut SharedWeights,
) -> Result<Llama> {
    let by_name = HashMap::new();
    let shared = Some(shared);
    let mut loader = Loader { device, source, adapter, keeps_reference: false, by_name, shared, stops: &|| false };
    loader.model(source.config().clone()).context("loading the model")
}

/// A and B of each module, with DoRA its magnitudes, and the weights that are saved whole.
fn adapter_specs(config: &ModelConfig, adapter: &Adapter, decay: Decay) -> Vec<Spec> {
    let spec = |name: String, t: &HostTensor, group| Spec {
        name,
        rows: t.shape[0],
        cols: t.shape[1],
        decay: Some(0.0),
        group,
    };
    let mut specs = Vec::new();
    for pair in &adapter.pairs {
        let (a, b) = tensor_names(&pair.module);
        specs.extend([spec(a, &pair.a, Group::Main), spec(b, &pair.b, Group::LoraB)]);
        if adapter.config.use_dora {
            let (name, cols) = (magnitude_name(&pair.module), pair.b.shape[0]);
            let decay = (decay == Decay::All).then_some(0.0);
            specs.push(Spec { name, rows: 1, cols, decay, group: Group::LoraB });
        }
    }
    // PEFT's LoRA+ counts vectors among the B matrices.
    let saved = specs_of(adapter.config.targets.saved_weights(config), decay);
    specs.extend(
        saved.into_iter().map(|spec| Spec { group: if spec.rows == 1 { Group::LoraB } else { spec.group }, ..spec }),
    );
    specs
}

fn model_specs(config: &ModelConfig, decay: Decay) -> Vec<Spec> {
    specs_of(weights(config), decay)
}

fn specs_of(weights: Vec<Weight>, decay: Decay) -> Vec<Spec> {
    let spec = |Weight { name, shape, offset, .. }: Weight| {
        let (rows, cols) = matrix(&shape);
        let decays = decay == Decay::All || shape.len() > 1;
        // What the file holds decays to 0.
        Spec { name, rows, cols, decay: decays.then_some(offset), group: Group::Main }
    };
    weights.into_iter().map(spec).collect()
}

/// Rows and columns of a shape. A vector is a matrix of one row.
fn matrix(shape: &[usize]) -> (usize, usize) {
    if shape.len() == 1 { (1, shape[0]) } else { (shape[0], shape[1]) }
}

struct Loader<'a> {
    device: &'a mut dyn Executor,
    source: &'a WeightSource,
    adapter: Option<&'a Adapter>,
    /// Whether layers get a frozen copy of their adapters.
    keeps_reference: bool,
    by_name: HashMap<String, Trainable>,
    shared: Option<&'a mut SharedWeights>,
    stops: &'a dyn Fn() -> bool,
}

impl Loader<'_> {
    fn model(&mut self, config: ModelConfig) -> Result<Llama> {
        let embed = self.weight("model.embed_tokens.weight", &[config.vocab, config.hidden])?;
        let blocks = (0..config.n_layers())
            .map(|i| self.block(&config, i).map(Rc::new).with_context(|| format!("layer {i}")))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = self.weight("model.norm.weight", &[config.hidden])?;
        let head_shape = [config.vocab, config.hidden];
        let unties = self.adapter.is_some_and(|a| a.config.targets.unties(&config));
        let head = if config.tied && !unties { None } else { Some(self.weight("lm_head.weight", &head_shape)?) };
        let n_positions = config.max_positions.min(4096);
        let rope = ModelRope::upload(self.device, &config, 1, n_positions)?;
        Ok(Llama { config, embed, blocks, final_norm, head, rope })
    }

    fn block(&mut self, config: &ModelConfig, index: usize) -> Result<Block> {
        if (self.stops)() {
            return Err(Error::of_kind(ErrorKind::Interrupted, "loading was stopped"));
        }
        let prefix = format!("model.layers.{index}");
        let linears = linears(config);
        let (inputs, o, gate_up, down) = match linears.as_slice() {
            [q, k, v, o, gate, up, down] => (&[q, k, v][..], o, &[gate, up][..], down),
            [qkv, o, gate_up, down] => (&[qkv][..], o, &[gate_up][..], down),
            _ => unreachable!("a block has seven linear layers, or four if they are fused"),
        };
        let site = (index * 7) as u32;
        let widths = [config.q_channels(), config.kv_channels(), config.kv_channels()];
        let qkv = self.joint(&prefix, inputs, widths, site)?;
        let (o, _) = self.linears(&prefix, [o], site + 3)?;
        let gate_up = self.joint(&prefix, gate_up, [config.inner; 2], site + 4)?;
        let (down, _) = self.linears(&prefix, [down], site + 6)?;
        let ([o], [down]) = (o, down);
        let qk_norm = match config.qk_norm_channels() {
            Some([q, k]) => {
                let mut norm =
                    |which: &str, n: usize| self.weight(&format!("{prefix}.self_attn.{which}_norm.weight"), &[n]);
                Some((norm("q", q)?, norm("k", k)?))
            }
            None => None,
        };
        let names = NormNames::of(config.norms);
        let mut norm = |name: Option<(&str, &str)>| {
            let read = |(name, _)| self.weight(&format!("{prefix}.{name}.weight"), &[config.hidden]);
            name.map(read).transpose()
        };
        let layer = &config.layers[index];
        Ok(Block {
            index,
            heads: crate::attention::Heads { queries: config.n_heads, keys: config.n_kv_heads, dim: config.head_dim },
            eps: config.rms_eps as f32,
            scale: layer.scale as f32,
            residual_scale: config.residual_scale as f32,
            activation: config.activation,
            rope: layer.rope,
            input_norm: norm(names.input)?,
            after_attention_norm: norm(names.after_attention)?,
            qkv,
            o,
            qk_norm,
            mlp_norm: norm(names.mlp)?,
            gate_up,
            down,
            after_mlp_norm: norm(names.after_mlp)?,
        })
    }

    /// Linear layers with the same input: one for each width, or one that holds them all.
    fn joint<const N: usize>(
        &mut self,
        prefix: &str,
        names: &[&LinearName],
        widths: [usize; N],
        site: u32,
    ) -> Result<Joint<N>> {
        if let [whole] = names {
            let ([whole], _) = self.linears(prefix, [whole], site)?;
            return Ok(Joint::Fused(Box::new(Fused::new(whole, widths))));
        }
        let names = <[&LinearName; N]>::try_from(names).expect("a layer for each width");
        let (layers, whole) = self.linears(prefix, names, site)?;
        Ok(Joint::Apart(Stacked::new(layers, whole)))
    }

    /// Linear layers with the same input, and their weights stacked in one tensor if possible.
    /// `site` is the dropout site of the first layer; the others follow.
    fn linears<const N: usize>(
        &mut self,
        prefix: &str,
        names: [&LinearName; N],
        site: u32,
    ) -> Result<([Linear; N], Option<Tensor>)> {
        let weights = names.map(|name| format!("{prefix}.{}.weight", name.path));
        let shared: Vec<Param> = weights.iter().map_while(|name| self.shared_param(name)).collect();
        if shared.len() == N {
            let whole = self.shared.as_ref().and_then(|shared| shared.stacked.get(&weights[0]).cloned());
            let mut made = Vec::with_capacity(N);
            for (i, (name, param)) in names.into_iter().zip(shared).enumerate() {
                made.push(self.linear(prefix, name, param, site + i as u32)?);
            }
            return Ok((all_of(made), whole));
        }
        let mut hosts = Vec::with_capacity(N);
        for (name, weight) in names.into_iter().zip(weights) {
            let (host, _) = self.read(&weight, &[name.n_out, name.n_in])?;
            hosts.push((weight, host));
        }
        let whole = self.whole(&hosts)?;
        if let Some((whole, _)) = &whole {
            let parts: Vec<&HostTensor> = hosts.iter().map(|(_, host)| host).collect();
            whole.write_stored(self.device, &parts)?;
        }
        let mut made = Vec::with_capacity(N);
        for (i, (name, (weight, host))) in names.into_iter().zip(&hosts).enumerate() {
            let param = match &whole {
                Some((_, parts)) => Param::frozen(weight, parts[i].clone()),
                None => self.param(weight, host)?,
            };
            self.share(&param);
            made.push(self.linear(prefix, name, param, site + i as u32)?);
        }
        let whole = whole.map(|(whole, _)| whole);
        let is_base = !hosts.iter().any(|(name, _)| self.is_own(name));
        if let (Some(shared), Some(whole)) = (self.shared.as_mut().filter(|_| is_base), &whole) {
            shared.stacked.entry(hosts[0].0.clone()).or_insert_with(|| whole.clone());
        }
        Ok((all_of(made), whole))
    }

    /// One tensor for several weights of the same format, and its parts. `None` if a weight is
    /// trained or could not be bound on its own.
    fn whole(&self, hosts: &[(String, HostTensor)]) -> Result<Option<(Tensor, Vec<Tensor>)>> {
        let (first, format) = (&hosts[0].1, stored_format(&hosts[0].1));
        let is_alike = |(name, host): &(String, HostTensor)| {
            !self.by_name.contains_key(name) && stored_format(host) == format && host.shape[1] == first.shape[1]
        };
        let rows: Vec<usize> = hosts.iter().map(|(_, host)| host.shape[0]).collect();
        // The outputs of the stacked layers are bound in parts too.
        let is_bindable = rows.iter().all(|n| n.is_multiple_of(ELEMENT_ALIGNMENT));
        if hosts.len() == 1 || !is_bindable || !hosts.iter().all(is_alike) {
            return Ok(None);
        }
        let label = format!("{} and the weights stacked on it", hosts[0].0);
        let whole = Tensor::persistent(&label, format, rows.iter().sum(), first.shape[1], &self.device.limits())?;
        Ok(whole.split_rows(&rows).map(|parts| (whole, parts)))
    }

    fn linear(&mut self, prefix: &str, name: &LinearName, weight: Param, site: u32) -> Result<Linear> {
        let module = format!("{prefix}.{}", name.path);
        let bias = if name.bias { Some(self.weight(&format!("{module}.bias"), &[name.n_out])?) } else { None };
        let pair =
            self.adapter.and_then(|a| a.pairs.iter().find(|p| p.module == module).map(|p| (p, a.config.dropout)));
        let lora = pair.map(|(pair, dropout)| self.lora(pair, &weight.value, dropout, site)).transpose()?;
        let reference = pair.filter(|_| self.keeps_reference);
        let reference = reference.map(|(pair, _)| self.frozen_lora(pair, &weight.value, site)).transpose()?;
        Ok(Linear { weight, bias, lora, reference })
    }

    /// [`Loader::lora`] in memory of its own, of which nothing is trained.
    fn frozen_lora(&mut self, pair: &AdapterPair, w: &Tensor, site: u32) -> Result<Lora> {
        let trained = std::mem::take(&mut self.by_name);
        let lora = self.lora(pair, w, 0.0, site);
        self.by_name = trained;
        lora
    }

    /// The adapter of a layer with the weight w.
    fn lora(&mut self, pair: &AdapterPair, w: &Tensor, dropout: f64, site: u32) -> Result<Lora> {
        let (a, b) = tensor_names(&pair.module);
        let lora = |a, b| Lora { a, b, scale: pair.scale as f32, dropout: dropout as f32, site, dora: None };
        if !self.adapter.is_some_and(|adapter| adapter.config.use_dora) {
            return Ok(lora(self.param(&a, &pair.a)?, self.param(&b, &pair.b)?));
        }
        let lora = lora(self.param_f32(&a, &pair.a)?, self.param_f32(&b, &pair.b)?);
        let norms = lora.norms_now(self.device, w)?;
        let name = magnitude_name(&pair.module);
        let magnitude = match &pair.magnitude {
            Some(host) => host.clone(),
            None => HostTensor::from_f32(&[w.rows], &norms.read(self.device)?),
        };
        let magnitude = self.param_f32(&name, &magnitude)?;
        // The norms of a frozen adapter are computed once; steps of training change them.
        let norms = lora.a.grad.is_none().then_some(norms);
        Ok(Lora { dora: Some(Dora { magnitude, norms }), ..lora })
    }

    /// [`Loader::param`] in f32, which the kernel of the norms reads.
    fn param_f32(&mut self, name: &str, host: &HostTensor) -> Result<Param> {
        self.param(name, &HostTensor::from_f32(&host.shape, &host.to_f32()?))
    }

    /// Whether the adapter has this weight of the model.
    fn is_own(&self, name: &str) -> bool {
        self.adapter.is_some_and(|adapter| adapter.saved(name).is_some())
    }

    /// A weight that is on the device already, unless the adapter has its own.
    fn shared_param(&self, name: &str) -> Option<Param> {
        let shared = self.shared.as_ref()?.by_name.get(name)?;
        (!self.is_own(name)).then(|| Param::frozen(name, shared.clone()))
    }

    /// Offers a weight to other models, unless it is the adapter's own.
    fn share(&mut self, param: &Param) {
        let is_base = !self.is_own(&param.name);
        if let Some(shared) = self.shared.as_mut().filter(|_| is_base) {
            shared.by_name.entry(param.name.clone()).or_insert_with(|| param.value.clone());
        }
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Param> {
        if let Some(shared) = self.shared_param(name) {
            return Ok(shared);
        }
        let (host, offset) = self.read(name, shape)?;
        let param = self.param(name, &host)?;
        if offset != 0.0 {
            self.move_by(&param.value, offset)?;
        }
        self.share(&param);
        Ok(param)
    }

    /// Adds a number to the values of a tensor, in the precision of the device.
    fn move_by(&mut self, value: &Tensor, offset: f32) -> Result<()> {
        let by = Tensor::persistent("offset", Format::F32, value.rows, value.cols, &self.device.limits())?;
        by.write(self.device, &vec![offset; value.len()])?;
        let mut rec = Recording::new();
        add_into(&mut rec, &by, value);
        self.device.run(&rec)
    }

    /// A weight of the model's files, or the adapter's in its place, as
    /// [`WeightSource::read_stored`]. A head that the adapter unties begins as the embedding.
    fn read(&self, name: &str, shape: &[usize]) -> Result<(HostTensor, f32)> {
        match self.adapter.and_then(|adapter| adapter.saved(name)) {
            Some(saved) => Ok((saved.clone(), self.source.offset(name))),
            None if name == "lm_head.weight" && self.source.config().tied => {
                self.source.read_stored("model.embed_tokens.weight", shape)
            }
            None => self.source.read_stored(name, shape),
        }
    }

    /// Uploads a tensor: to the arena if it is trained, otherwise in its stored format.
    fn param(&mut self, name: &str, host: &HostTensor) -> Result<Param> {
        if let Some(t) = self.by_name.get(name) {
            t.value.write(self.device, &host.to_f32()?)?;
            host.bytes.release_all();
            return Ok(Param { name: name.to_string(), value: t.value.clone(), grad: Some(t.grad.clone()) });
        }
        let (rows, cols) = matrix(&host.shape);
        let value = Tensor::persistent(name, stored_format(host), rows, cols, &self.device.limits())?;
        value.write_stored(self.device, &[host])?;
        Ok(Param::frozen(name, value))
    }
}

/// As many layers as there were names.
fn all_of<const N: usize>(made: Vec<Linear>) -> [Linear; N] {
    <[Linear; N]>::try_from(made).unwrap_or_else(|_| unreachable!("one layer a name"))
}

/// The format of a frozen tensor on the device: the file's format if kernels support it, otherwise
/// f32.
fn stored_format(host: &HostTensor) -> Format {
    let (_, cols) = matrix(&host.shape);
    let stored = Format::of(host.dtype).filter(|f| host.shape.len() == 2 && f.takes_rows_of(cols));
    stored.unwrap_or(Format::F32)
}
