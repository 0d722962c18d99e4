//! The folder of a run: locks, checkpoints, and what resumes.

use super::*;
use crate::formats::host_tensor::HostTensor;
use crate::optim::OptimizerState;
use crate::train::Keep;

fn job(out: &Path, method: Method) -> TrainJob {
    TrainJob { out: out.to_path_buf(), method, ..TrainJob::default() }
}

fn bundled() -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    ModelFiles::open(&model.display().to_string(), None).unwrap()
}

#[test]
fn adapters_and_models_are_not_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    let files = ModelFiles::open(&model.display().to_string(), None).unwrap();
    let open = |method| RunFolder::open(&job(dir.path(), method), &files).map(|folder| folder.used);
    assert!(!open(Method::Lora).unwrap() && !open(Method::Full).unwrap());
    for (file, own, other) in
        [("adapter_config.json", Method::Lora, Method::Full), ("config.json", Method::Full, Method::Lora)]
    {
        fs::write(dir.path().join(file), "{}").unwrap();
        let e = open(other).unwrap_err();
        assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains(file), "{e}");
        let again = TrainJob { overwrite: true, ..job(dir.path(), own) };
        assert!(RunFolder::open(&again, &files).unwrap().used);
        fs::remove_file(dir.path().join(file)).unwrap();
    }
}

#[test]
fn a_folder_is_for_one_run_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let out = dir.path().join("a/b");
    let job = job(&out, Method::Lora);
    let mut first = RunFolder::open(&job, &files).unwrap();
    assert!(!out.exists(), "opening creates nothing");
    first.make([&[], &[]]).unwrap();
    let e = RunFolder::open(&job, &files).err().unwrap();
    assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains("another run is writing"), "{e}");
    drop(first);
    RunFolder::open(&job, &files).unwrap().make([&[], &[]]).unwrap();
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["checkpoints", "job.json"]);
}

fn state(step: u64) -> TrainerState {
    let optimizer = OptimizerState { optimizer: "sgd".into(), step, slots: Vec::new() };
    let parameters = vec![("w".to_string(), HostTensor::from_f32(&[1], &[step as f32]))];
    TrainerState { parameters, optimizer, micro_batches: 0, epoch: 0, position: 0, chunk: None }
}

fn save(folder: &mut RunFolder<'_>, step: u64) {
    let write = |dir: &Path| {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("adapter_model.safetensors"), step.to_string())?;
        fs::write(dir.join("adapter_config.json"), "{}")?;
        Ok(state(step))
    };
    folder.save(step, write).unwrap();
}

#[test]
fn the_last_checkpoints_and_the_best_one_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    let mut folder = RunFolder::open(&job, &files).unwrap();
    folder.make([&[], &[]]).unwrap();
    for step in 1..=6 {
        save(&mut folder, step);
        if step == 2 {
            folder.keep_best(2);
        }
    }
    folder.keep_best(9); // its save failed
    assert_eq!(steps_in(dir.path()).unwrap(), [2, 5, 6]);
    assert!(!dir.path().join("checkpoints/unfinished").exists());
    assert_eq!(fs::read_to_string(dir.path().join("adapter_model.safetensors")).unwrap(), "6");
    assert!(dir.path().join("adapter_config.json").is_file() && !dir.path().join("state.json").exists());
}

#[test]
fn an_unfinished_run_resumes_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    let examples = [Example { ids: vec![1, 2], labels: vec![1, 2], rejected: None }];
    let line = |step| EvalLine { step, loss: 1.0, perplexity: Some(1.0), pairs: None, tokens: 1 };
    {
        let mut folder = RunFolder::open(&job, &files).unwrap();
        folder.make([&examples, &[]]).unwrap();
        for step in 1..=3 {
            if step < 3 {
                save(&mut folder, step);
            }
            folder.log_eval(&line(step)).unwrap();
        }
        fs::write(dir.path().join("checkpoints/.longreach-1-0.tmp"), "left by a killed run").unwrap();
        fs::create_dir(dir.path().join("checkpoints/unfinished")).unwrap();
    }
    let refusal = |job: &TrainJob| RunFolder::open(job, &files).err().unwrap().to_string();
    let faster = TrainJob { lr: Some(0.5), ..job.clone() };
    let e = refusal(&faster);
    assert!(e.contains("`lr` by default, not 0.5") && e.contains("`overwrite`"), "{e}");
    let with_keeps = |keeps| refusal(&TrainJob { keeps: Some(keeps), ..job.clone() });
    let e = with_keeps(vec![]);
    assert!(e.contains("`keep` by default, not one value for all steps"), "{e}");
    let e = with_keeps(vec![Keep::Fixed(0.5), Keep::Anneal { from: 1.0, to: 0.25 }]);
    assert!(e.contains("`keep` by default, not 0.5, 1..0.25"), "{e}");
    assert!(refusal(&TrainJob { resume: true, ..faster.clone() }).contains("the same settings"));
    assert_eq!(held(&TrainJob { save_every: 7, ..job.clone() }).unwrap(), Held::Unfinished);
    {
        let mut folder = RunFolder::open(&TrainJob { save_every: 7, ..job.clone() }, &files).unwrap();
        assert_eq!(folder.resumed_at(), Some(2));
        folder.make([&examples, &[]]).unwrap();
        assert_eq!(folder.take_state(), Some(state(2)));
        assert_eq!(folder.evaluations().unwrap(), [line(1), line(2)], "the log is cut behind the checkpoint");
        folder.log_eval(&line(3)).unwrap();
        assert_eq!(folder.evaluations().unwrap().len(), 3);
        let names = fs::read_dir(dir.path().join("checkpoints")).unwrap();
        assert!(names.map(|e| e.unwrap().file_name()).all(|n| n != "unfinished" && n != ".longreach-1-0.tmp"));
        save(&mut folder, 3);
        folder.finish().unwrap();
    }
    assert!(refusal(&job).contains("finished"));
    let mut folder = RunFolder::open(&TrainJob { overwrite: true, ..faster }, &files).unwrap();
    assert!(folder.resumed_at().is_none() && folder.used);
    folder.make([&[], &[]]).unwrap();
    assert!(steps_in(dir.path()).unwrap().is_empty() && dir.path().join("adapter_config.json").is_file());
    save(&mut folder, 1);
    assert_eq!(fs::read_to_string(dir.path().join("adapter_model.safetensors")).unwrap(), "1");
}

#[test]
fn what_others_put_beside_the_checkpoints_stays() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    let theirs = ["best", "step-best", "notes.txt"].map(|name| dir.path().join("checkpoints").join(name));
    theirs.iter().for_each(|path| fs::create_dir_all(path).unwrap());
    for overwrite in [false, false, true] {
        let job = TrainJob { overwrite, ..job.clone() };
        let mut folder = RunFolder::open(&job, &files).unwrap();
        folder.make([&[], &[]]).unwrap();
        assert!(theirs.iter().all(|path| path.is_dir()) && !dir.path().join("checkpoints/failed").exists());
        let step = folder.resumed_at().unwrap_or(0) + 1;
        save(&mut folder, step);
        fs::write(dir.path().join("checkpoints/failed"), "no memory").unwrap();
    }
    assert_eq!(steps_in(dir.path()).unwrap(), [1], "the checkpoints of the earlier run are replaced");
}

#[test]
fn a_run_without_a_checkpoint_has_nothing_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    RunFolder::open(&job, &files).unwrap().make([&[], &[]]).unwrap();
    for (held_now, words) in [(Held::Nothing, "no run to resume"), (Held::Unfinished, "before its first checkpoint")] {
        assert_eq!(held(&job).unwrap(), held_now);
        let e = RunFolder::open(&TrainJob { resume: true, ..job.clone() }, &files).err().unwrap();
        assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains(words), "{e}");
        assert_eq!(RunFolder::open(&job, &files).unwrap().resumed_at(), None, "it begins anew");
        fs::write(dir.path().join("adapter_config.json"), "{}").unwrap(); // the result of an earlier run
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    let mut folder = RunFolder::open(&job, &files).unwrap();
    folder.make([&[], &[]]).unwrap();
    save(&mut folder, 1);
    drop(folder);
    fs::write(dir.path().join("checkpoints/step-1/state.safetensors"), "damaged").unwrap();
    let e = RunFolder::open(&job, &files).unwrap().make([&[], &[]]).unwrap_err().to_string();
    assert!(e.contains("step-1") && !e.contains("cannot be written"), "{e}");
}

#[test]
fn other_data_is_not_resumed_with() {
    let dir = tempfile::tempdir().unwrap();
    let files = bundled();
    let job = job(dir.path(), Method::Lora);
    let example = |ids: Vec<u32>| Example { labels: vec![1; ids.len()], ids, rejected: None };
    let mut folder = RunFolder::open(&job, &files).unwrap();
    folder.make([&[example(vec![1, 2])], &[]]).unwrap();
    save(&mut folder, 1);
    drop(folder);
    let before = fs::read_to_string(dir.path().join("job.json")).unwrap();
    for data in [[vec![example(vec![2, 1])], vec![]], [vec![example(vec![1, 2])], vec![example(vec![1])]]] {
        let mut folder = RunFolder::open(&TrainJob { save_every: 9, ..job.clone() }, &files).unwrap();
        let e = folder.make([&data[0], &data[1]]).unwrap_err().to_string();
        assert!(e.contains("the data is not what"), "{e}");
        assert_eq!(fs::read_to_string(dir.path().join("job.json")).unwrap(), before, "nothing is changed");
    }
}
