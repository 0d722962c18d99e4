//! Step 4: fine-tunes a real, tiny model with LRSA on a few made-up sentences.
//!
//! It combines the earlier steps: a device, a model whose blocks are ops on a tape, and an
//! optimiser that runs as kernels. `longreach train` uses the same `Trainer`; here the data is in
//! memory and nothing is saved.
//!
//!     cargo run --release --example 04_train_tiny -- [DEVICE]

use longreach::Result;
use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::record::AttentionRecord;
use longreach::data::dataset::{Dataset, Example, Split};
use longreach::gpu::open_device;
use longreach::train::{Method, Observer, StepLine, TrainJob, Trainer};

/// Prints every fifth step.
struct Print;

impl Observer for Print {
    fn step(&mut self, line: &StepLine) {
        if line.step % 5 == 1 {
            println!("step {:>2}  loss {:.4}  gradient norm {:.3}", line.step, line.loss, line.grad_norm);
        }
    }
}

fn main() -> Result<()> {
    let mut device = open_device(&std::env::args().nth(1).unwrap_or_else(|| "cpu".into()))?;
    let files = ModelFiles::bundled(None)?;

    // One long sequence: a story that the model does not know, repeated.
    let text = "Tom the otter had a red kite. The kite flew over the hill and the wind took it to the sea. ".repeat(8);
    let ids = files.tokenizer()?.encode(&text, true)?;
    let labels = ids.iter().map(|&id| id as i32).collect();
    println!("{} tokens to learn", ids.len());
    let data = Dataset {
        train: Split { examples: vec![Example { ids, labels, rejected: None }], ..Split::default() },
        valid: None,
    };

    // Sink 4, partitions of 16 tokens, a quarter of each kept. Only a small adapter is trained; the
    // model stays frozen.
    let lrsa = Attention::Lrsa(Lrsa::new(4, 16, 0.25)?);
    let job = TrainJob {
        method: Method::Lora,
        rank: Some(8),
        steps: Some(26),
        lr: Some(1e-2),
        attention: Some(AttentionRecord::of(lrsa)),
        keeps: Some(vec![]), // the same r in every step
        ..TrainJob::default()
    };
    let mut trainer = Trainer::new(device.as_mut(), &files, &job)?;
    let before = trainer.evaluate(device.as_mut(), &data.train.examples, lrsa)?.loss;
    trainer.fit(device.as_mut(), &data, None, &mut Print)?;
    let after = trainer.evaluate(device.as_mut(), &data.train.examples, lrsa)?.loss;
    println!("loss with the compressed keys: {before:.3} before, {after:.3} after");
    assert!(after < 0.5 * before, "training halves the loss");
    println!("the loss halved");
    Ok(())
}
