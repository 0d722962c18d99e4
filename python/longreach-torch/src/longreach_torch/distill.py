"""Distillation: a student with LRSA learns from the dense model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .enable import LrsaHandle

IGNORED = -100
"""Label of a token that does not count in the cross-entropy."""


class Losses(NamedTuple):
    """The loss of a batch and its two parts, each a `torch.Tensor` without dimensions."""

    loss: Tensor
    ce: Tensor
    kl: Tensor


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    weight: float,
    attention_mask: Tensor | None = None,
    num_labels: Tensor | int | None = None,
    num_positions: Tensor | int | None = None,
) -> Losses:
    """(1 - weight) · cross-entropy + weight · KL(teacher ‖ student), at temperature 1.

    The cross-entropy is the mean over the labelled tokens. KL is the mean over every position that
    has a next token in its sequence, labelled or not.

    Args:
        student (`torch.Tensor` of shape `[B, n, V]`): Logits of the model in training.
        teacher (`torch.Tensor` of shape `[B, n, V]`): Logits of [`teacher_logits`].
        labels (`torch.Tensor` of shape `[B, n]`): Labels as in transformers, not shifted.
        weight (`float`): Weight of the teacher, from 0 to 1.
        attention_mask (`torch.Tensor` of shape `[B, n]`, *optional*): 0 for padding, on the right.
        num_labels (`int`, *optional*): Labelled tokens of the whole step, if it has more batches.
        num_positions (`int`, *optional*): Positions with a next token, likewise.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight={weight} is no weight of the teacher: give a number from 0 to 1.")
    wide = torch.promote_types(student.dtype, torch.float32)
    said = student[:, :-1].to(wide).log_softmax(-1)
    wanted = teacher[:, :-1].to(wide).log_softmax(-1)
    targets = labels[:, 1:]
    ce = F.nll_loss(said.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    kl = F.kl_div(said, wanted, reduction="none", log_target=True).sum(-1)
    if attention_mask is not None:
        kl = kl * attention_mask[:, 1:]
    if num_labels is None:
        num_labels = int((targets != IGNORED).sum())
    if num_positions is None:
        num_positions = int(positions_of(labels, attention_mask))
    ce = ce / max(num_labels, 1)
    kl = kl.sum() / max(num_positions, 1)
    return Losses((1.0 - weight) * ce + weight * kl, ce, kl)


def positions_of(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Number of positions that have a next token in their sequence."""
    real = torch.ones_like(labels) if attention_mask is None else attention_mask
    return real[:, 1:].sum()


@torch.no_grad()
def teacher_logits(
    model: Any, handle: LrsaHandle, teacher: Literal["base", "self"] = "base", **inputs: Any
) -> Tensor:
    """Logits `[B, n, V]` of the teacher, which attends densely and without dropout.

    Args:
        model (`PeftModel` or `PreTrainedModel`): The model in training.
        handle (`LrsaHandle`): LRSA in the model.
        teacher (`"base"` or `"self"`): The model with its adapter off, or as it is.
        inputs (`Any`): Inputs of the model, without labels.
    """
    training = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        stack.enter_context(handle.dense())
        if teacher == "base":
            stack.enter_context(adapter_of(model).disable_adapter())
        model.eval()
        try:
            logits: Tensor = model(**inputs, use_cache=False).logits
        finally:
            for module, was_training in training.items():
                module.training = was_training
    return logits


def adapter_of(model: Any) -> Any:
    """The `PeftModel` whose base is the teacher, within wrappers such as DDP's."""
    for module in model.modules():
        if hasattr(module, "disable_adapter"):
            check_teacher(module)
            return module
    raise ValueError('teacher="base" is the model with its adapter off, and there is no adapter.')


def check_teacher(model: Any) -> None:
    """Refuses an adapter that changes the base model even when it is off."""
    for config in model.peft_config.values():
        if getattr(config, "modules_to_save", None):
            raise ValueError('teacher="base" is the untouched model: modules_to_save replaces it.')
        if getattr(config, "init_lora_weights", True) not in (True, False, "gaussian"):
            raise ValueError(
                'teacher="base" is the untouched model: '
                f"init_lora_weights={config.init_lora_weights!r} changes its weights."
            )
        if getattr(config, "bias", "none") != "none":
            raise ValueError(
                f'teacher="base" is the untouched model: bias={config.bias!r} trains its biases.'
            )
