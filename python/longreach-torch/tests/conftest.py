"""The golden cases of the repository, computed by transformers and PEFT in float64."""

import contextlib
import functools
import json
import os
import pathlib
import subprocess

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from longreach_torch import enable_lrsa

REPOSITORY = pathlib.Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests" / "golden"
# The cases that the tests of test_golden.py and test_cache.py take one by one.
CASES = pathlib.Path(os.environ.get("LONGREACH_GOLDEN", GOLDEN))
IS_V5 = transformers.__version__.startswith("5.")
torch.set_num_threads(1)


def cases(has):
    """Names of the golden cases in whose files a name of a tensor holds this text.

    A model whose layers all have windows is none of them, because LRSA refuses it.
    """
    names = []
    for file in sorted(CASES.glob("*/golden.json")):
        info = json.loads(file.read_text())
        is_older = info.get("transformers", "4").startswith("4")
        if 0 in info.get("windows", [0]) and (is_older or IS_V5):
            names += [file.parent.name] if files_with(file.parent, has) else []
    assert names
    return names


def files_with(folder, has):
    """Files of a case in which a name of a tensor holds this text, without their suffix."""
    found = []
    for file in sorted(folder.glob("golden*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if any(has in name for name in tensors.keys()):  # noqa: SIM118
                found.append(file.stem)
    return found


class Golden:
    """One golden case."""

    def __init__(self, name, file="golden", folder=GOLDEN):
        self.folder = folder / name
        self.tensors = load_file(self.folder / f"{file}.safetensors")
        self.info = json.loads((self.folder / "golden.json").read_text())
        self.modes = self.info["modes"]
        self.ids = self.tensors["input_ids"].long()
        self.labels = self.tensors["labels"].long()
        self.prompt = self.tensors["prompt_ids"].long()

    def model(self, dtype=torch.float64, adapter=False):
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, self.folder / "lora", is_trainable=True)
        return model.to(dtype)


def enable(model, settings):
    """LRSA under the settings of a mode; without settings, dense attention under the name."""
    return enable_lrsa(model, **(settings or {"keep": 1.0}))


def forward(model, ids, **kwargs):
    """The output of a forward pass that depends on these ids alone."""
    for rope in model.modules():
        if getattr(rope, "rope_type", None) == "dynamic":
            rope.max_seq_len_cached = rope.original_max_seq_len
            rope.register_buffer("inv_freq", rope.original_inv_freq, persistent=False)
    return model(input_ids=ids, **kwargs)


def cross_entropy(logits, labels):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def gradients(model):
    return {
        name.replace(".default", ""): p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def adamw(model):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def wide_norm(self, x):
    """RMSNorm in the type of its input; transformers computes it in float32."""
    eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
    weight = 1.0 + self.weight if "Gemma" in type(self).__name__ else self.weight
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


@contextlib.contextmanager
def wide_norms(model):
    """RMSNorms of the model in float64 within this context."""
    classes = {type(m) for m in model.modules() if type(m).__name__.endswith("RMSNorm")}
    before = {cls: cls.forward for cls in classes}
    for cls in classes:
        cls.forward = wide_norm
    try:
        yield
    finally:
        for cls, function in before.items():
            cls.forward = function


@functools.cache
def engine_path():
    """The compiled program: LONGREACH, or what cargo built last."""
    if named := os.environ.get("LONGREACH"):
        return named
    target = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target")
    built = [target / kind / "longreach" for kind in ("release", "debug")]
    built = [path for path in built if path.is_file()]
    return str(max(built, key=lambda path: path.stat().st_mtime)) if built else None


@pytest.fixture(scope="session")
def engine():
    """Runs the compiled program and returns the JSON object that it prints.

    Without the program its tests are skipped, but in CI they fail.
    """
    path = engine_path()
    if path is None or not pathlib.Path(path).is_file():
        missing = f"no longreach program {path or ''}: run cargo build, or set LONGREACH"
        if path or os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)

    def run(*arguments):
        done = subprocess.run(
            [path, *map(str, arguments), "--json"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
