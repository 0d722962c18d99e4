//! Times candle on a GGUF file of the Llama family: prefill of a prompt, and decode.
//!
//! `longreach-peer-candle FILE.gguf IDS.json quantised|f32 MAX_TOKENS REPEATS`
//!
//! `quantised` is candle's own GGUF path: weights stay as stored, and activations are rounded to 8
//! bits for the products. `f32` is its Llama with the same weights dequantised. Prints one line of
//! JSON with the best of the repeats and the ids of the last run, to check that two programs did
//! the same work.

use std::collections::HashMap;
use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use candle_transformers::models::quantized_llama::ModelWeights;

/// A model and its cache, from ids at a position to the last one's logits.
enum Model {
    Quantised(ModelWeights),
    F32(Box<Llama>, Cache, Config),
}

impl Model {
    fn quantised(path: &str) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        Ok(Self::Quantised(ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?))
    }

    fn f32(path: &str) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let config = config(&content)?;
        let mut tensors = HashMap::new();
        for name in content.tensor_infos.keys() {
            let value = content.tensor(&mut file, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
            let value = match name.rsplit_once('.').map(|(stem, _)| stem) {
                Some(stem) if stem.ends_with("attn_q") => unpermuted(&value, config.num_attention_heads)?,
                Some(stem) if stem.ends_with("attn_k") => unpermuted(&value, config.num_key_value_heads)?,
                _ => value,
            };
            tensors.insert(hugging_face_name(name), value);
        }
        let cache = Cache::new(true, DType::F32, &config, &Device::Cpu)?;
        let model = Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?;
        Ok(Self::F32(Box::new(model), cache, config))
    }

    fn restart(&mut self) -> Result<()> {
        if let Self::F32(_, cache, config) = self {
            *cache = Cache::new(true, DType::F32, config, &Device::Cpu)?;
        }
        Ok(()) // the quantised model resets at position 0
    }

    fn next(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Quantised(model) => model.forward(&input, position)?,
            Self::F32(model, cache, _) => model.forward(&input, position, cache)?,
        };
        logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar()
    }
}

fn config(content: &Content) -> Result<Config> {
    let value = |name: &str| match content.metadata.get(&format!("llama.{name}")) {
        Some(value) => Ok(value),
        None => bail!("the file does not say llama.{name}"),
    };
    let number = |name: &str| value(name)?.to_u32().map(|n| n as usize);
    Ok(Config {
        hidden_size: number("embedding_length")?,
        intermediate_size: number("feed_forward_length")?,
        vocab_size: content.tensor_infos["token_embd.weight"].shape.dims()[0],
        num_hidden_layers: number("block_count")?,
        num_attention_heads: number("attention.head_count")?,
        num_key_value_heads: number("attention.head_count_kv")?,
        use_flash_attn: false,
        rms_norm_eps: f64::from(value("attention.layer_norm_rms_epsilon")?.to_f32()?),
        rope_theta: value("rope.freq_base")?.to_f32()?,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: number("context_length")?,
        tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
    })
}

/// GGUF stores a head's rows in pairs (2 i, 2 i + 1); Llama expects halves.
fn unpermuted(weight: &Tensor, n_heads: usize) -> Result<Tensor> {
    let (rows, cols) = weight.dims2()?;
    weight.reshape((n_heads, rows / n_heads / 2, 2, cols))?.transpose(1, 2)?.contiguous()?.reshape((rows, cols))
}

fn hugging_face_name(name: &str) -> String {
    let names = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
        ("blk", "model.layers"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let part = |p: &str| names.iter().find(|(from, _)| *from == p).map_or(p.to_string(), |(_, to)| (*to).to_string());
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Seconds of prefill and of decode, and the ids.
fn run(model: &mut Model, prompt: &[u32], max_tokens: usize) -> Result<(f64, f64, Vec<u32>)> {
    model.restart()?;
    let start = Instant::now();
    let mut ids = vec![model.next(prompt, 0)?];
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    while ids.len() < max_tokens {
        ids.push(model.next(&ids[ids.len() - 1..], prompt.len() + ids.len() - 1)?);
    }
    Ok((prefill, start.elapsed().as_secs_f64(), ids))
}

/// The ids in a JSON file with one sequence, `[[1, 2, 3]]`.
fn read_ids(path: &str) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(path)?;
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|part| part.parse().map_err(candle_core::Error::wrap)).collect()
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, ids, form, max_tokens, repeats] = &args[..] else {
        bail!("usage: longreach-peer-candle FILE.gguf IDS.json quantised|f32 MAX_TOKENS REPEATS");
    };
    let prompt = read_ids(ids)?;
    let count = |text: &str| text.parse::<usize>().map_err(candle_core::Error::wrap);
    let (max_tokens, repeats) = (count(max_tokens)?, count(repeats)?);
    let mut model = if form == "f32" { Model::f32(file)? } else { Model::quantised(file)? };
    let (mut prefill, mut decode, mut generated) = (f64::MAX, f64::MAX, vec![]);
    for _ in 0..repeats {
        let (p, d, ids) = run(&mut model, &prompt, max_tokens)?;
        (prefill, decode, generated) = (prefill.min(p), decode.min(d), ids);
    }
    println!(
        "{{\"program\":\"candle {form}\",\"prompt_tokens\":{},\"prefill_tokens_per_s\":{:.1},\"decode_tokens_per_s\":{:.2},\
         \"ids\":{generated:?}}}",
        prompt.len(),
        prompt.len() as f64 / prefill,
        (max_tokens - 1) as f64 / decode,
    );
    Ok(())
}
