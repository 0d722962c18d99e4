"""The cache of generation: it keeps the sink, the selected pairs and the recent ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from .attention import gather_pairs, select_kept
from .settings import Lrsa, full_attention_layers


class LrsaLayer(DynamicLayer):  # type: ignore[misc]
    """The cache of one layer with full attention.

    `keys` and `values` are `torch.Tensor` of shape `[B, Hk, m, d]`: first the pairs that are kept,
    the sink among them, then fewer than 2L recent ones. Kept keys keep their rotation.
    """

    is_croppable = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, settings: Lrsa) -> None:
        """An empty layer."""
        super().__init__()
        self.settings = settings
        self.seen = 0
        self.kept = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds pairs and returns those that the new queries attend to. Then it compresses.

        Args:
            key_states (`torch.Tensor` of shape `[B, Hk, m, d]`): New rotated keys.
            value_states (`torch.Tensor` of shape `[B, Hk, m, d]`): New values.
            args (`Any`): Ignored, as are keywords.
            kwargs (`Any`): Ignored.

        Returns:
            Keys and values `[B, Hk, m' + m, d]`. The keys carry the settings and the number of
            kept pairs in `lrsa_cached`, for [`lrsa_attention`].
        """
        keys: Tensor
        keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        sink = max(self.kept, min(self.settings.sink, self.seen))
        keys.lrsa_cached = (self.settings, sink)  # type: ignore[attr-defined]
        self.compress(keys, values)
        return keys, values

    def compress(self, keys: Tensor, values: Tensor) -> None:
        """Selects pairs of all full partitions but the last, and drops their others."""
        lag, kept = self.settings.lag, self.settings.kept
        sink = self.kept or self.settings.sink
        positions = select_kept(keys, values, sink, lag, kept)
        if partitions := positions.shape[2]:
            rest = sink + partitions * lag
            self.keys, self.values = (
                torch.cat([s[:, :, :sink], gather_pairs(s, positions), s[:, :, rest:]], dim=2)
                for s in (keys, values)
            )
            self.kept = sink + partitions * kept

    def get_seq_length(self) -> int:
        """Number of tokens seen, which numbers the next position."""
        return self.seen

    def reset(self) -> None:
        """Forgets all pairs."""
        self.keys = self.values = None
        self.is_initialized = False
        self.seen = self.kept = 0

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Fails: pairs that were dropped cannot come back."""
        raise NotImplementedError(
            "LrsaCache cannot be cropped, because it has dropped pairs: use no assisted generation."
        )


class LrsaCache(Cache):  # type: ignore[misc]
    """The compressed cache of a model, for `generate(past_key_values=...)`.

    Layers with a sliding window get the cache that transformers gives them.

    Args:
        config (`PretrainedConfig`): The model's configuration.
        sink (`int`): S, the first tokens, which are all kept.
        lag (`int`): L, the tokens of a partition.
        keep (`float`): r, the fraction of each partition that is kept.
    """

    def __init__(self, config: Any, sink: int = 16, lag: int = 128, keep: float = 0.25) -> None:
        """An empty cache."""
        settings = Lrsa(sink, lag, keep)
        layers = DynamicCache(config=config).layers
        for index, is_full in enumerate(full_attention_layers(config)[: len(layers)]):
            if is_full:
                layers[index] = LrsaLayer(settings)
        super().__init__(layers=layers)
