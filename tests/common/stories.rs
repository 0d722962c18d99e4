//! The bundled model on the CPU, for evaluation tests.

use std::ops::ControlFlow;

use longreach::checkpoint::bundled::MOBY_DICK;
use longreach::checkpoint::load::{Loaded, Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::eval::{Policy, Subject};
use longreach::gpu::CpuExecutor;

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k");

pub struct Stories {
    pub device: CpuExecutor<f32>,
    pub files: ModelFiles,
    pub loaded: Loaded,
}

impl Stories {
    pub fn open() -> Self {
        let mut device = CpuExecutor::<f32>::new();
        let files = ModelFiles::open(MODEL, None).unwrap();
        let loaded = load(&mut device, &files.source, None, Train::Nothing).unwrap();
        Self { device, files, loaded }
    }

    pub fn subject(&mut self) -> Subject<'_> {
        Subject {
            device: &mut self.device,
            model: &mut self.loaded.model,
            files: &self.files,
            chunk: 50,
            batch: 1,
            chat: true,
            max_positions: 512,
        }
    }

    pub fn text_ids(&self) -> Vec<u32> {
        self.files.tokenizer().unwrap().encode(&MOBY_DICK[..3000], true).unwrap()
    }
}

pub fn policies(names: &[&str]) -> Vec<Policy> {
    names.iter().map(|name| Policy::parse(name, 4, 16, 7).unwrap()).collect()
}

pub fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
