"""examples/train.py: on several processes as on one, and from the engine to it and back."""

import json
import os
import pathlib
import random
import runpy
import subprocess
import sys

import pytest
from conftest import GOLDEN
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainingArguments

from longreach_torch import (
    KeepCallback,
    KeepSchedule,
    Lrsa,
    enable_lrsa,
    from_longreach,
    read_record,
    save_longreach,
)
from longreach_torch.files import fingerprint

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE.parent / "examples" / "train.py"
MODEL = GOLDEN / "llama-gqa"
NETWORK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
LRSA = ["--sink", 4, "--lag", 16]
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight texts that LRSA compresses."""
    folder = tmp_path_factory.mktemp("data")
    numbers = random.Random(0)
    with (folder / "train.jsonl").open("w") as stream:
        for _ in range(8):
            ids = [numbers.randrange(320) for _ in range(numbers.randint(60, 120))]
            stream.write(json.dumps({"input_ids": ids, "labels": [-100] * 20 + ids[20:]}) + "\n")
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def train(data, out, *flags, launcher=(), model=MODEL):
    """Losses of a run of the script. A launcher replaces the plain call of Python."""
    common = ["--model", model, "--data", data, "--out", out, "--device", "cpu"]
    command = [sys.executable, *launcher, SCRIPT, *common, *flags]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **NETWORK},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return losses(out)


def torchrun():
    return ["-m", "torch.distributed.run", "--nproc_per_node", 2, "--standalone"]


def accelerate():
    return [
        *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2),
        *("--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--rdzv_backend", "c10d", "--main_process_ip", "localhost", "--main_process_port", 0),
    ]


def fsdp():
    return [*torchrun(), HERE / "fsdp_on_cpu.py"]


def near(actual, expected, bound):
    assert len(actual) == len(expected)
    assert max(abs(a - b) for a, b in zip(actual, expected, strict=True)) < bound


SMALL = [*LRSA, "--rank", 4, "--steps", 4, "--lr", 2e-3]
DISTILLED = ["--distill", 0.5, "--keep", "1,0.25"]


@pytest.fixture(scope="module")
def one_process(data, tmp_path_factory):
    """Folders of runs on one process."""
    folders = {}
    for name, flags in (("plain", []), ("distilled", DISTILLED)):
        folders[name] = tmp_path_factory.mktemp(name)
        train(data, folders[name], *SMALL, *flags, "--batch-size", 4)
    return folders


@pytest.mark.parametrize(
    ("launcher", "name", "flags"),
    [
        pytest.param(accelerate, "plain", ["--batch-size", 2], marks=slow),
        (torchrun, "distilled", [*DISTILLED, "--accumulate", 2]),
        pytest.param(fsdp, "plain", ["--fsdp", "--batch-size", 2], marks=slow),
        (
            fsdp,
            "distilled",
            [
                "--fsdp",
                *DISTILLED,
                "--accumulate",
                2,
                "--gradient-checkpointing",
                "--save-every",
                3,
            ],
        ),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch(
    launcher, name, flags, data, one_process, tmp_path
):
    expected = losses(one_process[name])
    assert max(expected) - min(expected) > 1e-3
    near(train(data, tmp_path, *SMALL, *flags, launcher=launcher()), expected, 5e-6)
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, one_process[name])
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[tensor] - theirs[tensor]).abs().max() < 2e-5 for tensor in ours)
    assert read_record(tmp_path) == read_record(one_process[name])


def run_here(monkeypatch, data, out, *flags):
    """Runs the script in this process."""
    common = ["--model", MODEL, "--data", data, "--out", out, "--device", "cpu", *SMALL]
    monkeypatch.setattr(sys, "argv", [str(part) for part in (SCRIPT, *common, *flags)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_run_saves_on_its_way(data, tmp_path, monkeypatch):
    saved = []

    def watch(model, folder, *rest):
        save_longreach(model, folder, *rest)
        step = len(losses(tmp_path))
        saved.append((step, read_record(folder), load_file(folder / "adapter_model.safetensors")))

    monkeypatch.setattr("longreach_torch.save_longreach", watch)
    run_here(monkeypatch, data, tmp_path, "--save-every", 2, "--keep", "0.5,1,1,1")
    (first, record, early), (last, again, late) = saved
    assert (first, last) == (2, 4)
    assert record == again == read_record(tmp_path)
    assert record["keep"] == 0.5
    assert any((early[name] != late[name]).any() for name in late)
    kept = load_file(tmp_path / "adapter_model.safetensors")
    assert all((kept[name] == late[name]).all() for name in late)
    assert not (tmp_path / "partial").exists()


def test_one_process_takes_one_gpu(data, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(SystemExit, match="torchrun"):
        run_here(monkeypatch, data, tmp_path)


@slow
def test_bfloat16_stays_near_float32(data, one_process, tmp_path):
    half = train(data, tmp_path, *SMALL, "--batch-size", 4, "--bf16")
    near(half, losses(one_process["plain"]), 0.02)


SGD = ["--optimizer", "sgd", "--schedule", "constant", "--lr", 0.1, "--clip", 0]
WHOLE = ["--batch-size", 8]


def run_engine(engine, data, out, steps, *flags):
    engine(
        *("train", "--model", MODEL, "--data", data, "--out", out, "--device", "cpu"),
        *("--attention", "lrsa", *LRSA, "--steps", steps, *WHOLE, *flags),
    )
    return losses(out)


@pytest.fixture(scope="module")
def started(engine, data, tmp_path_factory):
    """An adapter that the engine trained for a few steps."""
    out = tmp_path_factory.mktemp("runs") / "started"
    run_engine(engine, data, out, 5, "--rank", 4, "--lr", 1e-2)
    return out


def test_an_adapter_goes_to_torch_and_back(engine, data, started, tmp_path):
    """Ten steps without optimiser state in one place, and five here and five there."""
    same = [*SGD, "--keep", 0.25]
    alone = [*same, "--momentum", 0]
    whole = run_engine(engine, data, tmp_path / "whole", 10, "--adapter", started, *alone)
    assert whole[0] - whole[-1] > 0.02
    here = train(data, tmp_path / "here", "--adapter", started, "--steps", 5, *WHOLE, *same)
    back = run_engine(engine, data, tmp_path / "back", 5, "--adapter", tmp_path / "here", *alone)
    near([*here, *back], whole, 1e-4)
    record = read_record(tmp_path / "here")
    assert record == read_record(started) == read_record(tmp_path / "back")


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--lr", 1e-3, "--schedule", "cosine", "--warmup", 2], marks=slow),
        ["--lr", 1e-3, "--schedule", "linear", "--distill", 0.5, "--keep", "1,0.5..0.125,0.25"],
        ["--lr", 1e-3, "--schedule", "constant", "--distill", 0.3, "--teacher", "self"],
    ],
    ids=["cosine", "drawn", "self"],
)
def test_a_run_has_the_losses_of_the_engine(flags, engine, data, started, tmp_path):
    common = ["--adapter", started, "--seed", 3, *flags]
    theirs = run_engine(engine, data, tmp_path / "theirs", 8, *common)
    ours = train(data, tmp_path / "ours", "--steps", 8, *WHOLE, *common)
    near(ours, theirs, 1e-4)
    assert read_record(tmp_path / "ours") == read_record(tmp_path / "theirs")


def test_files_are_those_of_the_engine(started, tmp_path):
    assert fingerprint(MODEL) == read_record(started)["base"]["fingerprint"]
    model, handle = from_longreach(started, is_trainable=True)
    assert isinstance(model, PeftModel)
    assert handle.keep == 0.25
    save_longreach(model, tmp_path / "copy", handle)
    one, two = (load_file(f / "adapter_model.safetensors") for f in (started, tmp_path / "copy"))
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_a_whole_model_and_dense_attention_are_read(tmp_path):
    model, handle = from_longreach_of(tmp_path, {"attention": "dense"})
    assert handle.keep == 1.0
    save_longreach(model, tmp_path / "saved", handle)
    assert read_record(tmp_path / "saved") == {"attention": "dense"}
    handle.keep = 0.5
    save_longreach(model, tmp_path / "saved", handle)
    _, again = from_longreach(tmp_path / "saved")
    assert again.settings == handle.settings
    for record in ({}, {"attention": "other"}):
        with pytest.raises(ValueError, match="records no attention"):
            from_longreach_of(tmp_path, record)
    (tmp_path / "longreach.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"longreach\.json"):
        from_longreach(tmp_path)


def from_longreach_of(folder, record):
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    (folder / "longreach.json").write_text(json.dumps(record))
    return from_longreach(folder)


def test_an_adapter_of_a_quantised_model_needs_a_base(started, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((started / name).read_bytes())
    record = {**read_record(started), "base": {"model": "some/model.gguf", "fingerprint": "x"}}
    (tmp_path / "longreach.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="give base="):
        from_longreach(tmp_path)
    model, _ = from_longreach(tmp_path, base=MODEL)
    assert isinstance(model, PeftModel)


def test_the_usual_list_is_that_of_the_engine():
    def first(lag, keep, longest):
        schedule = KeepSchedule.usual(Lrsa(4, lag, keep), longest, total=48)
        assert schedule.recorded == keep
        return [ratio for ratio, _ in schedule.ratios]

    assert first(64, 0.25, 8192) == [0.25, 0.125, 1.0, 1.0]
    assert first(64, 0.25, 8193) == [0.25, 0.125, 0.5]
    assert first(4, 0.25, 1000) == [0.25, 1.0]
    assert first(64, 0.5, 9000) == [0.5, 0.25]
    assert first(64, 1.0, 1000) == [1.0]
    schedule = KeepSchedule.usual(Lrsa(4, 64, 0.25), 1000, total=48)
    steps = [schedule.at(step) for step in range(1, 9)]
    assert steps == [1.0, 1.0, 0.25, 0.125, 0.125, 0.25, 1.0, 1.0]


def test_keep_ratios_anneal_as_in_the_engine():
    schedule = KeepSchedule("1.0..0.0625", total=5)
    assert [schedule.at(step) for step in range(1, 6)] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert schedule.recorded == 0.0625
    assert KeepSchedule(0.25, total=1).at(1) == 0.25
    drawn = [KeepSchedule("1,0.5,0.25", total=90, seed=1).at(step) for step in range(1, 91)]
    assert all(15 < drawn.count(keep) < 45 for keep in (1.0, 0.5, 0.25))
    for wrong in ("", "0", "0.5..", "..0.5", "1.5", "a..b", "nan"):
        with pytest.raises(ValueError, match="no keep ratio"):
            KeepSchedule(wrong, total=1)
    with enable_lrsa(AutoModelForCausalLM.from_pretrained(MODEL), lag=16) as handle:
        KeepCallback(handle, KeepSchedule("1..0.0625,0.25", total=5))
        for small in ("1,0.05", "1..0.05", "0.05..1"):
            with pytest.raises(ValueError, match="keep no pair"):
                KeepCallback(handle, KeepSchedule(small, total=5))
