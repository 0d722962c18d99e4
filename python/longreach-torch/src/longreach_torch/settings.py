"""The settings of Lag-Relative Sparse Attention, and the layers of a model that it can replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Lrsa:
    """Settings of Lag-Relative Sparse Attention.

    Args:
        sink (`int`): S, the first tokens, which every query sees.
        lag (`int`): L, the tokens of a partition. Use 1024 for 7B-class models.
        keep (`float`): r, the fraction of each partition that is kept. 0.25 compresses 4x.
    """

    sink: int = 16
    lag: int = 128
    keep: float = 0.25

    def __post_init__(self) -> None:
        """Refuses settings that keep nothing."""
        if self.sink < 0 or self.lag < 1 or not 0.0 < self.keep <= 1.0:
            raise ValueError(
                f"LRSA with sink={self.sink}, lag={self.lag}, keep={self.keep} is not possible: "
                "sink is at least 0, lag at least 1, and keep lies in (0, 1]."
            )
        if self.kept == 0:
            raise ValueError(
                f"lag={self.lag} and keep={self.keep} keep no pair of a partition: raise keep to "
                f"at least {1 / self.lag}, or the lag."
            )

    @property
    def kept(self) -> int:
        """K, the pairs kept of each partition: r · L, truncated."""
        return int(self.keep * self.lag)

    def cache_length(self, tokens: int) -> int:
        """Number of pairs that one head caches after so many tokens."""
        if tokens < self.sink + 2 * self.lag:
            return tokens
        partitions, rest = divmod(tokens - self.sink, self.lag)
        return self.sink + self.kept * (partitions - 1) + self.lag + rest


def full_attention_layers(config: Any) -> list[bool]:
    """Tells for each layer whether it attends to the whole text.

    A sliding window that is as long as the model's `max_position_embeddings` counts as full
    attention.

    Args:
        config (`PretrainedConfig`): The configuration of a decoder, or of a model that has one.
    """
    config = config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is None:
        types = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    limit = getattr(config, "max_position_embeddings", None)
    unlimited = window is not None and limit is not None and window >= limit
    return [t == "full_attention" or (t == "sliding_attention" and unlimited) for t in types]
