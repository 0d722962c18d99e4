"""Kept indices, logits, gradients and ten losses equal those of the golden cases."""

import pytest
import torch
from conftest import (
    CASES,
    Golden,
    adamw,
    cases,
    cross_entropy,
    enable,
    files_with,
    forward,
    gradients,
    wide_norms,
)
from peft import LoraConfig, get_peft_model

from longreach_torch import attention as attention_module
from longreach_torch import distillation_loss, enable_lrsa, teacher_logits

# Golden tensors are stored in float32, which bounds what a float64 run can show.
F64 = {"logits": 1e-6, "loss": 1e-6, "grad": 1e-6, "losses": 1e-6}
F32 = {"logits": 3e-5, "loss": 2e-6, "grad": 1e-5, "losses": 1e-4}
WITH_MODEL = cases("dense.logits")
DISTILLED = [(n, f) for n in cases("distill.") for f in files_with(CASES / n, "distill.")]


def relative(actual, expected):
    error = (actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-12)
    return error.item()


@pytest.fixture
def selections(monkeypatch):
    """The positions that each call selects."""
    found = []

    def watch(*arguments):
        found.append(select(*arguments))
        return found[-1]

    select = attention_module.select_kept
    monkeypatch.setattr(attention_module, "select_kept", watch)
    return found


def check_forward_backward(golden, mode, settings, dtype, bounds, selections, adapter):
    prefix = f"lora.{mode}" if adapter else mode
    expected = golden.tensors
    model = golden.model(dtype, adapter)
    with wide_norms(model), enable(model, settings):
        selections.clear()
        logits = forward(model, golden.ids).logits
        kept = [positions.int() for positions in selections]
        loss = cross_entropy(logits, golden.labels)
        loss.backward()
    assert abs(loss.item() - expected[f"{prefix}.loss"].item()) < bounds["loss"]
    if not adapter:
        assert (logits - expected[f"{mode}.logits"]).abs().max() < bounds["logits"]
        names = [name for name in expected if name.startswith(f"{mode}.kept.")]
        names.sort(key=lambda name: int(name.rpartition(".")[2]))
        assert len(kept) == len(names)
        assert bool(names) == bool(settings)
        for actual, name in zip(kept, names, strict=True):
            assert torch.equal(actual, expected[name]), name
    wanted = {
        name.removeprefix(f"{prefix}.grad."): tensor
        for name, tensor in expected.items()
        if name.startswith(f"{prefix}.grad.")
    }
    assert wanted or not adapter
    found = gradients(model)
    for name, tensor in wanted.items():
        assert relative(found[name], tensor) < bounds["grad"], name


@pytest.mark.parametrize("name", WITH_MODEL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
def test_forward_and_backward(name, dtype, adapter, selections):
    golden = Golden(name, folder=CASES)
    bounds = F64 if dtype == torch.float64 else F32
    for mode, settings in golden.modes.items():
        check_forward_backward(golden, mode, settings, dtype, bounds, selections, adapter)


@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
def test_a_text_below_the_original_length_has_the_short_table(adapter, selections):
    golden = Golden("phi4-mini", "golden-short")
    for mode, settings in golden.modes.items():
        check_forward_backward(golden, mode, settings, torch.float64, F64, selections, adapter)


@pytest.mark.parametrize("name", WITH_MODEL)
@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
def test_ten_losses(name, adapter):
    golden = Golden(name, folder=CASES)
    for mode, settings in golden.modes.items():
        prefix = f"lora.{mode}" if adapter else mode
        model = golden.model(torch.float64, adapter)
        optimizer = adamw(model)
        losses = []
        with wide_norms(model), enable(model, settings):
            for _ in range(10):
                optimizer.zero_grad()
                loss = cross_entropy(forward(model, golden.ids).logits, golden.labels)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        error = (torch.tensor(losses) - golden.tensors[f"{prefix}.losses"]).abs().max()
        assert error < F64["losses"], (mode, error)


def test_the_teacher_leaves_every_module_in_its_mode():
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32, adapter=True).train()
    model.get_base_model().lm_head.eval()
    modes = [module.training for module in model.modules()]
    with enable_lrsa(model) as handle:
        teacher_logits(model, handle, input_ids=golden.ids)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lora_weights": "pissa"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_a_base_that_the_adapter_changes_is_no_teacher(changes):
    golden = Golden("llama-gqa")
    adapter = LoraConfig(target_modules=["q_proj"], r=2, **changes)
    model = get_peft_model(golden.model(torch.float32), adapter)
    with enable_lrsa(model) as handle, pytest.raises(ValueError, match=next(iter(changes))):
        teacher_logits(model, handle, input_ids=golden.ids)


@pytest.mark.parametrize("teacher", ["base", "self"])
@pytest.mark.parametrize(("name", "file"), DISTILLED)
def test_distillation(name, file, teacher):
    golden = Golden(name, file, CASES)
    tested = 0
    for mode, settings in golden.modes.items():
        prefix = f"distill.{teacher}.{mode}"
        if f"{prefix}.loss" not in golden.tensors:
            continue
        tested += 1
        model = golden.model(torch.float64, adapter=True)
        optimizer = adamw(model)
        losses = []
        with wide_norms(model), enable(model, settings) as handle:
            for step in range(10):
                wanted = teacher_logits(model, handle, teacher, input_ids=golden.ids)
                logits = forward(model, golden.ids).logits
                parts = distillation_loss(logits, wanted, golden.labels, weight=0.5)
                optimizer.zero_grad()
                parts.loss.backward()
                if step == 0:
                    for part in ("loss", "ce", "kl"):
                        expected = golden.tensors[f"{prefix}.{part}"].item()
                        assert abs(getattr(parts, part).item() - expected) < 1e-5
                    for n, gradient in gradients(model).items():
                        assert relative(gradient, golden.tensors[f"{prefix}.grad.{n}"]) < 1e-5, n
                optimizer.step()
                losses.append(parts.loss.item())
        error = (torch.tensor(losses) - golden.tensors[f"{prefix}.losses"]).abs().max()
        assert error < 1e-5, (mode, error)
    assert tested >= 2
