//! Inputs and expected values of the golden cases, for tests of the program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_file::Checkpoint;

/// Folders of `tests/golden`.
pub const CASES: [&str; 4] = ["llama-gqa", "qwen2-bias-tied", "qwen3-qknorm", "llama3-rope"];

/// One case.
pub struct GoldenFiles {
    pub dir: PathBuf,
    pub modes: Vec<(String, Attention)>,
    tensors: HashMap<String, HostTensor>,
}

impl GoldenFiles {
    pub fn open(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let file = Checkpoint::open(&dir.join("golden.safetensors")).unwrap();
        let tensors = file.names().map(|n| (n.to_string(), file.read(n).unwrap())).collect();
        let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mode = |(name, v): (&String, &serde_json::Value)| {
            let size = |key: &str| v[key].as_u64().unwrap() as usize;
            let attention = match v["keep"].as_f64() {
                None => Attention::Dense,
                Some(keep) => Attention::Lrsa(Lrsa::new(size("sink"), size("lag"), keep).unwrap()),
            };
            (name.clone(), attention)
        };
        let modes = json["modes"].as_object().unwrap().iter().map(mode).collect();
        Self { dir, modes, tensors }
    }

    /// An integer tensor [rows, tokens], row by row.
    fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let t = &self.tensors[name];
        t.to_i64().unwrap().chunks(t.shape[1]).map(<[i64]>::to_vec).collect()
    }

    pub fn ids(&self) -> Vec<Vec<u32>> {
        self.rows("input_ids").into_iter().map(|r| r.into_iter().map(|x| x as u32).collect()).collect()
    }

    pub fn labels(&self) -> Vec<Vec<i32>> {
        self.rows("labels").into_iter().map(|r| r.into_iter().map(|x| x as i32).collect()).collect()
    }

    /// Ids and labels as the lines of a training file.
    pub fn jsonl(&self) -> String {
        let line = |(ids, labels): (&Vec<u32>, &Vec<i32>)| {
            serde_json::json!({ "input_ids": ids, "labels": labels }).to_string() + "\n"
        };
        self.ids().iter().zip(&self.labels()).map(line).collect()
    }

    pub fn reals(&self, name: &str) -> Vec<f64> {
        let t = self.tensors.get(name).unwrap_or_else(|| panic!("no {name} in the golden file"));
        t.to_f32().unwrap().into_iter().map(f64::from).collect()
    }
}
