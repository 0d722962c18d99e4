//! The safetensors of a model folder, and the names under which they hold a text model.

use crate::error::Result;
use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_file::Checkpoint;
use std::collections::BTreeSet;
use std::path::Path;

/// The weights of a folder, by the names of a text model such as `model.norm.weight`.
pub(super) struct Folder {
    checkpoint: Checkpoint,
    /// What the file has in place of `model.`.
    body: &'static str,
    /// What the file has in front of `lm_head`.
    head: &'static str,
}

/// In text models; where only the base model was saved; in multimodal models, the older and the
/// newer way.
const BODIES: [&str; 4] = ["model.", "", "language_model.model.", "model.language_model."];
const HEADS: [&str; 2] = ["", "language_model."];

impl Folder {
    /// Opens the safetensors of a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let first = |prefixes: &[&'static str], name: &str| {
            let found = prefixes.iter().find(|prefix| checkpoint.contains(&format!("{prefix}{name}")));
            found.copied().unwrap_or(prefixes[0])
        };
        let (body, head) = (first(&BODIES, "embed_tokens.weight"), first(&HEADS, "lm_head.weight"));
        Ok(Self { checkpoint, body, head })
    }

    /// The file's name of a weight.
    pub fn stored(&self, name: &str) -> String {
        match name.strip_prefix("model.") {
            Some(rest) => format!("{}{rest}", self.body),
            None => format!("{}{name}", self.head),
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.stored(name))
    }

    /// Type and shape of a weight.
    pub fn info(&self, name: &str) -> Result<(DType, Vec<usize>)> {
        self.checkpoint.info(&self.stored(name))
    }

    /// The bytes of a weight in the file.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.checkpoint.bytes(&self.stored(name))
    }

    /// A weight, without a copy of its bytes.
    pub fn mapped(&self, name: &str) -> Result<HostTensor> {
        self.checkpoint.mapped(&self.stored(name))
    }

    /// A sentence about the tensors that are none of the weights `used`, such as those of a vision
    /// tower.
    pub fn unused_note<'a>(&self, used: impl Iterator<Item = &'a String>) -> Option<String> {
        const NAMED: usize = 2;
        let used: BTreeSet<String> = used.map(|name| self.stored(name)).collect();
        let head = self.stored("lm_head.weight"); // a copy of the embedding, if the head is tied
        let is_harmless = |name: &str| name.ends_with("rotary_emb.inv_freq") || name == head;
        let unused: Vec<&str> =
            self.checkpoint.names().filter(|name| !used.contains(*name) && !is_harmless(name)).collect();
        if unused.is_empty() {
            return None;
        }
        let named = unused.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = if unused.len() > NAMED { ", …" } else { "" };
        let n = unused.len();
        Some(format!("{n} tensors of the files are not part of the text model and are not used: {named}{more}"))
    }
}

/// What to give in place of a folder without a `config.json`, from what it holds; empty if it holds
/// nothing known.
pub(super) fn advice(path: &Path) -> String {
    let Ok(entries) = path.read_dir() else { return String::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if let Some(file) = names.iter().find(|name| name.to_ascii_lowercase().ends_with(".gguf")) {
        return format!("; this folder holds GGUF files: give one of them, such as {}", path.join(file).display());
    }
    let what = if has("adapter_config.json") {
        "a LoRA adapter: give its base model, and this folder as `adapter`"
    } else if has("snapshots") {
        "downloads: give the model's id (org/name), or a folder below snapshots"
    } else if has("params.json") || names.iter().any(|name| name.ends_with(".pth")) {
        "weights in their maker's own layout: convert them to Hugging Face's"
    } else if names.is_empty() {
        "nothing"
    } else {
        return String::new();
    };
    format!("; this folder holds {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_model_is_explained() {
        for (files, said) in [
            (&["x.Q4_K_M.gguf", "README.md"][..], "x.Q4_K_M.gguf"),
            (&["adapter_config.json"], "`adapter`"),
            (&["blobs", "refs", "snapshots"], "below snapshots"),
            (&["consolidated.00.pth", "params.json"], "convert them"),
            (&[], "holds nothing"),
            (&["notes.txt"], ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| std::fs::write(dir.path().join(file), "").unwrap());
            let advice = advice(dir.path());
            assert!(advice.contains(said) && advice.is_empty() == said.is_empty(), "{advice}");
        }
    }
}
