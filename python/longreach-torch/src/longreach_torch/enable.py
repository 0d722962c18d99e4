"""Switches a model's full attention layers to LRSA, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from transformers import PreTrainedModel

from .attention import NAME
from .cache import LrsaCache
from .settings import Lrsa, full_attention_layers


class LrsaHandle:
    """LRSA in one model, as [`enable_lrsa`] returns it.

    It is also a context manager that disables LRSA at its end.

    Attributes:
        settings (`Lrsa`): S, L and r.
        was_dense (`bool`): Whether the model was recorded with dense attention.
    """

    def __init__(self, model: torch.nn.Module, settings: Lrsa) -> None:
        """Prepares the attention layers. Use [`enable_lrsa`]."""
        inner = pretrained(model)
        self.config = inner.config.get_text_config(decoder=True)
        check_model(inner, self.config)
        is_full = full_attention_layers(self.config)
        layers = [m for m in inner.modules() if is_attention(m) and m.config is self.config]
        self._layers = {m: is_full[int(m.layer_idx)] for m in layers}
        if not layers:
            raise ValueError(
                f"{type(inner).__name__} has no attention layers that LRSA recognises: they need "
                "num_key_value_groups and layer_idx, as those of Llama have."
            )
        if not any(self._layers.values()):
            raise ValueError(
                f"{type(inner).__name__} has no layer with full attention, and LRSA replaces no "
                "other: its windows already limit its cache."
            )
        if any(hasattr(m, "lrsa") for m in layers):
            raise ValueError("The model already has LRSA: disable it first, or change handle.keep.")
        if self.config._attn_implementation == NAME:
            raise ValueError(
                "Another model with LRSA shares this configuration: load each model by itself, or "
                "give this one a copy of the configuration."
            )
        self._model = inner
        inner.lrsa_before = (self.config, self.config._attn_implementation)
        self.config._attn_implementation = NAME
        self.settings = settings
        self.was_dense = False
        self._depth = 0  # of contexts of `dense`
        self._set(settings)

    def _set(self, settings: Lrsa | None) -> None:
        for module, is_full in self._layers.items():
            module.lrsa = settings if is_full else None  # type: ignore[assignment]

    @property
    def keep(self) -> float:
        """r, the fraction of each partition that is kept. Assign to it between steps."""
        return self.settings.keep

    @keep.setter
    def keep(self, keep: float) -> None:
        self.settings = Lrsa(self.settings.sink, self.settings.lag, keep)
        if self._depth == 0:
            self._set(self.settings)

    @contextmanager
    def dense(self) -> Iterator[None]:
        """The model attends densely within this context. A ratio assigned in it holds after it."""
        self._depth += 1
        self._set(None)
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._set(self.settings)

    def new_cache(self) -> LrsaCache:
        """An empty cache with these settings, for `generate(past_key_values=...)`."""
        return LrsaCache(self.config, self.settings.sink, self.settings.lag, self.settings.keep)

    def disable(self) -> None:
        """Gives the model its own attention back. A second call does nothing."""
        if self._layers:
            disable_lrsa(self._model)
        self._layers = {}

    def __enter__(self) -> LrsaHandle:
        """Returns the handle."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disables LRSA."""
        self.disable()


def enable_lrsa(
    model: torch.nn.Module, sink: int = 16, lag: int = 128, keep: float = 0.25
) -> LrsaHandle:
    """Switches the full attention layers of a model to Lag-Relative Sparse Attention.

    Weights do not change, and neither do layers with a sliding window.

    Args:
        model (`PreTrainedModel` or a wrapper of one, such as `PeftModel`): A decoder.
        sink (`int`): S, the first tokens, which every query sees.
        lag (`int`): L, the tokens of a partition. Use 1024 for 7B-class models.
        keep (`float`): r, the fraction of each partition that is kept.

    Returns:
        [`LrsaHandle`], which changes r and disables LRSA.

    Example:

    ```python
    >>> with enable_lrsa(model, sink=16, lag=128, keep=0.25) as handle:
    ...     model.generate(input_ids, past_key_values=handle.new_cache())
    ```
    """
    return LrsaHandle(model, Lrsa(sink, lag, keep))


def disable_lrsa(model: torch.nn.Module) -> None:
    """Gives a model its own attention back, also without a handle, as in a copy of a model.

    Without LRSA in the model it does nothing.

    Args:
        model (`PreTrainedModel` or a wrapper of one): A model, after [`enable_lrsa`].
    """
    for module in model.modules():
        vars(module).pop("lrsa", None)
        if before := vars(module).pop("lrsa_before", None):
            config, implementation = before
            config._attn_implementation = implementation


def pretrained(model: torch.nn.Module) -> Any:
    """The model of transformers within wrappers such as PEFT's."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise TypeError(f"{type(model).__name__} holds no PreTrainedModel of transformers.")


def is_attention(module: torch.nn.Module) -> bool:
    """Tells whether the module is a self-attention layer of a decoder."""
    return hasattr(module, "num_key_value_groups") and hasattr(module, "layer_idx")


def check_model(model: Any, config: Any) -> None:
    """Refuses models whose attention transformers cannot replace."""
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} has an encoder and a decoder: LRSA is for decoders alone.")
    if not model._can_set_attn_implementation():
        raise ValueError(f"{name} does not attend through transformers' AttentionInterface.")
    if not model._supports_sdpa:
        raise ValueError(f"{name} cannot attend through PyTorch's attention (sdpa), as LRSA does.")
    if getattr(config, "attn_logit_softcapping", None):
        raise ValueError(f"{name} caps its attention scores (attn_logit_softcapping): LRSA cannot.")
