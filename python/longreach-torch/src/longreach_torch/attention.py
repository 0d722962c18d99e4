"""Lag-Relative Sparse Attention (LRSA) as an attention implementation of transformers.

Each partition of L tokens after the sink is scored by the partition that follows it. The K pairs
with the highest scores are kept. A query in partition p sees the sink, the kept pairs of the
partitions up to p-2, and all pairs from partition p-1 to itself. The kept pairs are packed in
order, so these are three contiguous runs, and no n x n mask is ever made.

Sources: LagKV (arXiv 2504.04704, equations 7 to 13) and LRSA (arXiv 2506.11498).

Shapes: B sequences, H query heads, Hk key-value heads, n tokens, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from .settings import Lrsa

NAME = "lrsa"
"""The `attn_implementation` under which transformers knows the attention."""

UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cu_seq_lens_q")
"""Arguments of attention functions that change the scores or mark packed sequences."""


def lag_scores(states: Tensor, sink: int, lag: int) -> Tensor:
    """Scores one side, keys or values, of every full partition that another one follows.

    Args:
        states (`torch.Tensor` of shape `[B, Hk, n, d]`): Rotated keys, or values.
        sink (`int`): S.
        lag (`int`): L.

    Returns:
        `torch.Tensor` of shape `[B, Hk, P-1, L]`, in float32 or the wider type of `states`.
    """
    partitions = (states.shape[2] - sink) // lag
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    states = torch.unflatten(states[:, :, sink : sink + partitions * lag], 2, (partitions, lag))
    low, high = states[:, :, 1:].aminmax(dim=3, keepdim=True)
    span = high - low
    flat = span < 1e-6
    scaled = (states[:, :, :-1] - low) / span.masked_fill(flat, 1.0)
    return scaled.masked_fill(flat, 0.0).std(dim=-1).softmax(dim=-1)


@torch.no_grad()
def select_kept(key: Tensor, value: Tensor, sink: int, lag: int, kept: int) -> Tensor:
    """Selects the pairs to keep of every full partition that another one follows.

    Equal scores favour the lower position.

    Args:
        key (`torch.Tensor` of shape `[B, Hk, n, d]`): Rotated keys.
        value (`torch.Tensor` of shape `[B, Hk, n, d]`): Values.
        sink (`int`): S.
        lag (`int`): L.
        kept (`int`): K.

    Returns:
        `torch.Tensor` of shape `[B, Hk, P-1, K]`: their positions in ascending order. With fewer
        than two full partitions the third size is 0.
    """
    partitions = max((key.shape[2] - sink) // lag, 0)
    if partitions < 2:
        return torch.empty(*key.shape[:2], 0, kept, dtype=torch.long, device=key.device)
    scores = lag_scores(key, sink, lag) + lag_scores(value, sink, lag)
    best = scores.sort(dim=-1, descending=True, stable=True).indices[..., :kept]
    first = sink + lag * torch.arange(partitions - 1, device=key.device)
    return best.sort(dim=-1).values + first[:, None]


def save_selection() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The `context_fn` of gradient checkpointing with LRSA.

    Recomputation then takes the selection of the forward pass, and never selects again.

    Example:

    ```python
    >>> model.gradient_checkpointing_enable(
    ...     {"use_reentrant": False, "context_fn": save_selection}
    ... )
    ```
    """
    contexts: tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
    contexts = create_selective_checkpoint_contexts(  # type: ignore[no-untyped-call]
        [torch.ops.aten.sort.stable]
    )
    return contexts


def gather_pairs(states: Tensor, positions: Tensor) -> Tensor:
    """Packs the states at some positions.

    Args:
        states (`torch.Tensor` of shape `[B, Hk, n, d]`): Keys or values.
        positions (`torch.Tensor` of shape `[B, Hk, P, K]`): Positions for each head.

    Returns:
        `torch.Tensor` of shape `[B, Hk, P·K, d]`.
    """
    rows = positions.flatten(2)[..., None]
    return states.gather(2, rows.expand(*rows.shape[:3], states.shape[3]))


class Run(NamedTuple):
    """A range of queries with the keys that it sees."""

    start: int
    """First query, as a position in the keys."""
    end: int
    """Position after the last query and the last key."""
    sink: int
    """Number of keys from the start of the text."""
    packed: int
    """Number of keys from the start of the packed ones."""
    window: int
    """First position of the window that ends with the last query."""

    def split(self) -> list[int]:
        """Numbers of keys from the sink, the packed keys and the window."""
        return [self.sink, self.packed, self.end - self.window]

    def join(self, states: Tensor, packed: Tensor) -> Tensor:
        """Keys or values of the run `[B, Hk, m, d]`."""
        parts = [states[:, :, : self.sink], packed[:, :, : self.packed]]
        return torch.cat([*parts, states[:, :, self.window : self.end]], dim=2)


def runs_of(queries: int, keys: int, sink: int, lag: int, kept: int) -> list[Run]:
    """The runs of the last `queries` positions of a text of `keys` tokens."""
    runs = [Run(0, min(sink + 2 * lag, keys), 0, 0, 0)]
    for p in range(2, 1 + max((keys - 1 - sink) // lag, 0)):
        start = sink + p * lag
        end = min(start + lag, keys)
        runs.append(Run(start, end, sink, kept * (p - 1), start - lag))
    first = keys - queries
    return [run._replace(start=max(run.start, first)) for run in runs if run.end > first]


def attend_run(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attends causally from the last m of n positions: `[B, H, m, d]` to `[B, Hk, n, d]`."""
    rows, keys, groups = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    if rows == keys:
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=groups > 1
        )
    # With a mask, the query heads of a key-value head become rows: few kernels take both a mask and
    # grouped heads.
    folded = torch.unflatten(query, 1, (key.shape[1], groups)).flatten(2, 3)
    mask = None
    if rows > 1:
        mask = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril(keys - rows)
        mask = mask.repeat(groups, 1)
    out = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return torch.unflatten(out, 2, (groups, rows)).flatten(1, 2)


class AttendRuns(torch.autograd.Function):
    """Attention run by run. The backward pass computes each run again and saves no joined keys."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        packed_key: Tensor,
        packed_value: Tensor,
        runs: list[Run],
        scaling: float,
    ) -> Tensor:
        """Returns the output `[B, H, m, d]` of queries of this shape."""
        ctx.save_for_backward(query, key, value, packed_key, packed_value)
        ctx.runs, ctx.scaling = runs, scaling
        first = runs[0].start
        outs = [
            attend_run(
                query[:, :, run.start - first : run.end - first],
                run.join(key, packed_key),
                run.join(value, packed_value),
                scaling,
            )
            for run in runs
        ]
        return torch.cat(outs, dim=2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Adds the gradients of the runs in order, in float32 or the wider type of the inputs."""
        inputs = ctx.saved_tensors
        query, key, value, packed_key, packed_value = inputs
        wide = torch.promote_types(query.dtype, torch.float32)
        grads = [torch.zeros_like(t, dtype=wide) for t in inputs]
        first = ctx.runs[0].start
        for run in ctx.runs:
            rows = slice(run.start - first, run.end - first)
            q = query[:, :, rows].detach().requires_grad_()
            k = run.join(key, packed_key).requires_grad_()
            v = run.join(value, packed_value).requires_grad_()
            with torch.enable_grad():
                out = attend_run(q, k, v, ctx.scaling)
            grad_query, *others = torch.autograd.grad(out, (q, k, v), grad_out[:, :, rows])
            grads[0][:, :, rows] += grad_query
            for grad, (states, packed) in zip(
                others, ((grads[1], grads[3]), (grads[2], grads[4])), strict=True
            ):
                sink, old, window = torch.split(grad, run.split(), dim=2)
                states[:, :, : run.sink] += sink
                packed[:, :, : run.packed] += old
                states[:, :, run.window : run.end] += window
        narrow = (grad.to(t.dtype) for grad, t in zip(grads, inputs, strict=True))
        return (*narrow, None, None)


def lrsa(
    query: Tensor, key: Tensor, value: Tensor, sink: int, lag: int, kept: int, scaling: float
) -> Tensor:
    """Lag-Relative Sparse Attention. Gradients reach the kept pairs, and never the scores.

    Under autocast it attends in the type of autocast, and selects from the states as they come, as
    the cache does.

    Args:
        query (`torch.Tensor` of shape `[B, H, m, d]`): Rotated queries of the last m positions.
        key (`torch.Tensor` of shape `[B, Hk, n, d]`): Rotated keys.
        value (`torch.Tensor` of shape `[B, Hk, n, d]`): Values.
        sink (`int`): S. Pairs that were kept before count as sink.
        lag (`int`): L.
        kept (`int`): K.
        scaling (`float`): Factor of the scores.

    Returns:
        `torch.Tensor` of shape `[B, H, m, d]`.
    """
    runs = runs_of(query.shape[2], key.shape[2], sink, lag, kept)
    if len(runs) == 1 and runs[0].packed == 0:
        seen = (states[:, :, : runs[0].end] for states in (key, value))
        return attend_run(*autocast(query, *seen), scaling)
    positions = select_kept(key.detach(), value.detach(), sink, lag, kept)
    query, key, value = autocast(query, key, value)
    packed = [gather_pairs(states, positions) for states in (key, value)]
    return AttendRuns.apply(query, key, value, *packed, runs, scaling)  # type: ignore[no-any-return, no-untyped-call]


def autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three in the type of autocast, where it is on."""
    device = query.device.type
    if not torch.is_autocast_enabled(device):
        return query, key, value
    dtype = torch.get_autocast_dtype(device)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def lrsa_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls under the name `"lrsa"`.

    Layers with a sliding window, and steps with dense attention, go to the model's own `"sdpa"`.

    Args:
        module (`torch.nn.Module`): The attention layer, prepared by [`enable_lrsa`].
        query (`torch.Tensor` of shape `[B, H, m, d]`): Rotated queries.
        key (`torch.Tensor` of shape `[B, Hk, n, d]`): Rotated keys, m of them new.
        value (`torch.Tensor` of shape `[B, Hk, n, d]`): Values.
        attention_mask (`torch.Tensor`, *optional*): The mask of a layer with a window.
        scaling (`float`, *optional*): Factor of the scores, d^-0.5 by default.
        dropout (`float`): Must be 0 in layers with LRSA.

    Returns:
        The output, a `torch.Tensor` of shape `[B, m, H, d]`, and `None` for the weights.
    """
    if not hasattr(module, "lrsa"):
        raise ValueError('attn_implementation="lrsa" needs settings: call enable_lrsa(model, ...).')
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ValueError(
                f"LRSA does not support the argument {name} of this model's attention."
            )
    check_positions(kwargs.get("position_ids"), query.shape[2], key.shape[2])
    settings = cast("Lrsa | None", module.lrsa)
    cached: tuple[Lrsa, int] | None = getattr(key, "lrsa_cached", None)
    rows, keys = query.shape[2], key.shape[2]
    if cached is not None and settings is not None:
        settings = cached[0]
    dense = settings is None or settings.kept == settings.lag
    if dense and (attention_mask is not None or rows in (1, keys)):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    check_call(attention_mask, dropout)
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    if dense or settings is None:
        out = attend_run(*autocast(query, key, value), scaling)
    elif cached is not None:
        out = lrsa(query, key, value, cached[1], settings.lag, settings.kept, scaling)
    elif rows == keys:
        out = lrsa(query, key, value, settings.sink, settings.lag, settings.kept, scaling)
    else:
        raise ValueError(
            "This cache keeps every pair: generate with past_key_values=handle.new_cache()."
        )
    return out.transpose(1, 2).contiguous(), None


def check_positions(positions: Tensor | None, rows: int, keys: int) -> None:
    """Refuses a whole text whose `position_ids` `[B, n]` begin again. Layers share one check."""
    if positions is None or positions.dim() != 2 or hasattr(positions, "lrsa_checked"):
        return
    if rows == keys > 1:
        if bool((positions[:, 1:] < positions[:, :-1]).any()):
            raise ValueError(
                "LRSA cannot attend to packed sequences, nor generate from padded ones, whose "
                "position_ids fall: give each sequence a row of its own, and prompts equal lengths."
            )
        positions.lrsa_checked = True  # type: ignore[attr-defined]


def check_call(attention_mask: Tensor | None, dropout: float) -> None:
    """Refuses what LRSA does not compute."""
    if attention_mask is not None:
        raise ValueError("LRSA takes no attention mask of its own: pass a 2D padding mask or none.")
    if dropout > 0.0:
        raise ValueError("LRSA has no attention dropout: set config.attention_dropout to 0.")


def lrsa_mask(
    *,
    batch_size: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    local_size: int | None = None,
    config: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """The mask function that transformers calls under the name `"lrsa"`.

    Layers with full attention need no mask. Layers with a window get the one of `"sdpa"`.

    Args:
        batch_size (`int`): B.
        mask_function (`Callable`): Tells of a row, a head, a query and a key whether it is seen.
        attention_mask (`torch.Tensor` of shape `[B, n]`, *optional*): True where a token is real.
            Padding must be on the right.
        allow_is_causal_skip (`bool`): False if the mask may be more than causal.
        local_size (`int`, *optional*): The window, in layers that have one.
        config (`PretrainedConfig`): The model's configuration.
        kwargs (`Any`): More arguments, which differ between versions of transformers.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if local_size is not None and (limit is None or local_size < limit):
        mask: Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](
            batch_size=batch_size,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=allow_is_causal_skip,
            local_size=local_size,
            config=config,
            **kwargs,
        )
        return mask
    if not allow_is_causal_skip:
        positions = kwargs.get("cache_position")  # transformers 4
        if positions is None:
            positions = torch.arange(kwargs["q_length"], device=kwargs["device"])
        rows = torch.arange(batch_size, device=positions.device)[:, None]
        first = mask_function(rows, 0, positions, torch.zeros_like(positions))
        ahead = mask_function(rows, 0, positions[:-1], positions[1:])
        if not bool(first.all()) or bool(ahead.any()):
            raise ValueError(
                "LRSA cannot attend to packed sequences or under a custom mask: give each sequence "
                "a row of its own."
            )
    if attention_mask is not None and bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()):
        raise ValueError(
            "LRSA cannot attend to left-padded rows, because their partitions would begin with "
            "padding: pad on the right to train, and generate from prompts of equal length."
        )
    return None


# The names do nothing until a model asks for them.
AttentionInterface.register(NAME, lrsa_attention)
AttentionMaskInterface.register(NAME, lrsa_mask)
