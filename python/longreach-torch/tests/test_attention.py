"""The attention against a plain formula, its gradients, and what it refuses."""

import copy

import pytest
import torch
from conftest import CASES, GOLDEN, Golden, cases, cross_entropy, gradients
from torch.autograd import gradcheck
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from longreach_torch import Lrsa, disable_lrsa, enable_lrsa, lrsa_attention, save_selection
from longreach_torch import attention as attention_module
from longreach_torch.attention import AttendRuns, gather_pairs, lrsa, runs_of, select_kept

SETTINGS = [(4, 16, 0.25), (3, 10, 0.4), (0, 7, 0.29), (16, 5, 1.0)]


def states(n, heads=4, groups=2, d=8, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    shapes = [(batch, heads, n, d), (batch, groups, n, d), (batch, groups, n, d)]
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def scores_of(side, sink, lag, p):
    """LagKV's score of the tokens of partition p of one head, channel by channel."""
    here, after = (side[sink + i * lag : sink + (i + 1) * lag] for i in (p, p + 1))
    low, high = after.min(0).values, after.max(0).values
    scaled = torch.stack([(row - low) / (high - low) for row in here])
    deviation = ((scaled - scaled.mean(1, keepdim=True)) ** 2).sum(1) / (side.shape[1] - 1)
    return torch.softmax(deviation.sqrt(), 0)


def expected(query, key, value, sink, lag, kept):
    """Attention query by query over the keys that the definition lists."""
    out = torch.empty_like(query)
    n, groups = key.shape[2], key.shape[1]
    part = [-1 if t < sink else (t - sink) // lag for t in range(n)]
    full = max(n - sink, 0) // lag
    for b in range(key.shape[0]):
        for h in range(query.shape[1]):
            k, v = (side[b, h // (query.shape[1] // groups)] for side in (key, value))
            chosen = set()
            for p in range(full - 1):
                score = scores_of(k, sink, lag, p) + scores_of(v, sink, lag, p)
                order = sorted(range(lag), key=lambda i, score=score: (-score[i].item(), i))
                chosen |= {sink + p * lag + i for i in order[:kept]}
            for t in range(n):
                seen = [
                    j
                    for j in range(t + 1)
                    if j < sink or part[j] >= part[t] - 1 or j in chosen or part[t] < 0
                ]
                weights = torch.softmax(k[seen] @ query[b, h, t] / query.shape[3] ** 0.5, 0)
                out[b, h, t] = weights @ v[seen]
    return out


@pytest.mark.parametrize(("sink", "lag", "keep"), SETTINGS)
@pytest.mark.parametrize("n", [1, 3, 20, 36, 57, 64])
def test_attention_equals_the_definition(sink, lag, keep, n):
    query, key, value = states(n)
    kept = Lrsa(sink, lag, keep).kept
    out = lrsa(query, key, value, sink, lag, kept, 8**-0.5)
    torch.testing.assert_close(out, expected(query, key, value, sink, lag, kept))


def test_ties_and_flat_channels_favour_the_lowest_position():
    key = torch.ones(1, 1, 30, 4)
    found = select_kept(key, key, 2, 7, 3)
    assert found.tolist() == [[[[2, 3, 4], [9, 10, 11], [16, 17, 18]]]]


def test_a_half_precision_text_is_scored_in_float32():
    _, key, value = (s.bfloat16() for s in states(90, dtype=torch.float32))
    wide = select_kept(key.float(), value.float(), 4, 16, 4)
    assert torch.equal(select_kept(key, value, 4, 16, 4), wide)


def test_runs_cover_every_query_once_without_a_square_of_keys():
    runs = runs_of(1000, 1000, 4, 16, 4)
    assert [run.end for run in runs[:-1]] == [run.start for run in runs[1:]]
    assert (runs[0].start, runs[-1].end) == (0, 1000)
    # Rows and keys of the largest mask.
    assert max(run.end - run.start for run in runs[1:]) == 16
    assert sum(runs[-1].split()) <= Lrsa(4, 16, 0.25).cache_length(1000) + 16


def test_masks_grow_with_the_length_and_not_with_its_square(monkeypatch):
    sdpa, sizes = torch.nn.functional.scaled_dot_product_attention, []

    def watch(*args, attn_mask=None, **kwargs):
        sizes.append(0 if attn_mask is None else attn_mask.numel())
        return sdpa(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    config = LlamaConfig(
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=1,
        intermediate_size=16,
        vocab_size=9,
    )
    model = LlamaModel(config)
    with enable_lrsa(model, 4, 16, 0.25):
        model(torch.zeros(1, 1024, dtype=torch.long)).last_hidden_state.sum().backward()
    # Two query heads of a group by the queries of a partition, by the keys that the last one sees.
    assert 0 < max(sizes) <= 2 * 16 * (Lrsa(4, 16, 0.25).cache_length(1024) + 16)


def test_gradients_with_the_selection_held_fixed():
    query, key, value = states(23, batch=1)
    positions = select_kept(key, value, 2, 5, 2)
    runs = runs_of(23, 23, 2, 5, 2)

    def attend(query, key, value):
        packed = [gather_pairs(side, positions) for side in (key, value)]
        return AttendRuns.apply(query, key, value, *packed, runs, 0.4)

    assert gradcheck(attend, [s.requires_grad_() for s in (query, key, value)])


def checkpointed_gradients(on, before_backward=lambda: None):
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32, adapter=True).train()
    if on:
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": save_selection})
    with enable_lrsa(model, **golden.modes["lrsa-4-16-0.25"]):
        loss = cross_entropy(model(golden.ids).logits, golden.labels)
        before_backward()
        loss.backward()
    return gradients(model)


def test_gradient_checkpointing_changes_no_gradient():
    plain, again = checkpointed_gradients(False), checkpointed_gradients(True)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_recomputation_takes_the_selection_of_the_forward_pass(monkeypatch):
    lag_scores, signs = attention_module.lag_scores, [1.0]
    calls = []

    def signed(states, sink, lag):
        calls.append(signs[0])
        return lag_scores(states, sink, lag) * signs[0]

    monkeypatch.setattr(attention_module, "lag_scores", signed)
    plain = checkpointed_gradients(False)
    again = checkpointed_gradients(True, before_backward=lambda: signs.insert(0, -1.0))
    assert -1.0 in calls
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_autocast_gives_bfloat16_results_near_those_of_float32():
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32, adapter=True)
    with enable_lrsa(model, **golden.modes["lrsa-4-16-0.25"]):
        exact = cross_entropy(model(golden.ids).logits, golden.labels)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(golden.ids).logits
            loss = cross_entropy(logits, golden.labels)
        loss.backward()
    assert logits.dtype == torch.bfloat16
    assert abs(loss - exact) < 0.02 * exact
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients(model).values())


@pytest.mark.parametrize("keep", [1.0, 0.25, None])
def test_sinks_of_the_scores_are_refused_in_every_layer(keep):
    layer = torch.nn.Module()
    layer.lrsa = keep and Lrsa(4, 16, keep)
    with pytest.raises(ValueError, match="s_aux"):
        lrsa_attention(layer, *states(64), None, s_aux=torch.zeros(4))


@pytest.mark.parametrize("name", ["llama-gqa", "gemma3"])
def test_padding_on_the_right_changes_nothing(name):
    golden = Golden(name)
    model = golden.model(torch.float64)
    ids = golden.ids[:, :101]
    mask = torch.ones_like(ids)
    padded = torch.cat([ids, ids[:, :15]], 1), torch.cat([mask, 0 * mask[:, :15]], 1)
    with enable_lrsa(model, **golden.modes["lrsa-4-16-0.25"]), torch.no_grad():
        alone = model(ids).logits
        beside = model(padded[0], attention_mask=padded[1]).logits[:, :101]
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", cases("lora."))
def test_dense_equals_the_model_and_disabling_restores_it(name):
    golden = Golden(name, folder=CASES)
    model = golden.model(torch.float64)
    implementation = model.config._attn_implementation
    ids = golden.ids[:, :60]
    with torch.no_grad():
        before = model(ids).logits
        attributes = [set(vars(m)) for m in model.modules()]
        with enable_lrsa(model, 4, 16, 0.25) as handle:
            assert model.config._attn_implementation == "lrsa"
            changed = model(ids).logits
            with handle.dense():
                with handle.dense():
                    handle.keep = 0.5
                dense = model(ids).logits
            handle.keep = 0.25
            assert torch.equal(model(ids).logits, changed)
            handle.keep = 1.0
            whole = model(ids).logits
        handle.disable()
        after = model(ids).logits
    torch.testing.assert_close(dense, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, before, rtol=0, atol=1e-6)
    assert not torch.allclose(changed, before, rtol=0, atol=1e-4)
    assert torch.equal(after, before)
    assert model.config._attn_implementation == implementation
    assert [set(vars(m)) for m in model.modules()] == attributes


def test_a_copy_is_disabled_without_a_handle():
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32)
    before = model(golden.ids).logits
    with enable_lrsa(model, 4, 16, 0.25) as handle:
        changed = model(golden.ids).logits
        other = copy.deepcopy(model)
        disable_lrsa(other)
        disable_lrsa(other)
        assert torch.equal(other(golden.ids).logits, before)
        assert torch.equal(model(golden.ids).logits, changed)
        enable_lrsa(other).disable()
        twin = type(model)(model.config)
        with pytest.raises(ValueError, match="shares this configuration"):
            enable_lrsa(twin)
        disable_lrsa(model)
        handle.disable()
        assert torch.equal(model(golden.ids).logits, before)


def test_refusals():
    window = AutoModelForCausalLM.from_pretrained(GOLDEN / "mistral-window")
    with pytest.raises(ValueError, match="no layer with full attention"):
        enable_lrsa(window)
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match="no attention layers that LRSA recognises"):
        enable_lrsa(other)
    both = T5ForConditionalGeneration(T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1))
    with pytest.raises(ValueError, match="encoder and a decoder"):
        enable_lrsa(both)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 9}
    sinks = GptOssForCausalLM(GptOssConfig(**small, num_local_experts=2, num_experts_per_tok=1))
    with pytest.raises(ValueError, match="sdpa"):
        enable_lrsa(sinks)
    with pytest.raises(TypeError, match="no PreTrainedModel"):
        enable_lrsa(torch.nn.Linear(2, 2))
    for wrong in ({"keep": 0.0}, {"keep": 1.5}, {"lag": 0}, {"sink": -1}, {"lag": 4, "keep": 0.2}):
        with pytest.raises(ValueError, match="keep"):
            Lrsa(**wrong)
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32)
    ids, ones = golden.ids, torch.ones_like(golden.ids)
    model.config._attn_implementation = "lrsa"
    with pytest.raises(ValueError, match="enable_lrsa"):
        model(ids)
    model.config._attn_implementation = "sdpa"
    with enable_lrsa(model, 4, 16, 0.25) as handle:
        with pytest.raises(ValueError, match="already has LRSA"):
            enable_lrsa(model)
        left = ones.clone()
        left[1, :5] = 0
        with pytest.raises(ValueError, match="left-padded"):
            model(ids, attention_mask=left)
        packed = torch.arange(ids.shape[1]).expand_as(ids) % 50
        with pytest.raises(ValueError, match="packed"):
            model(ids, position_ids=packed, use_cache=False)
        for given in ({"use_cache": True}, {"attention_mask": ones}):
            with pytest.raises(ValueError, match="packed"):
                model(ids, position_ids=packed, **given)
        model(ids, position_ids=torch.arange(ids.shape[1])[None], use_cache=False)
        square = torch.zeros(2, 1, ids.shape[1], ids.shape[1])
        with pytest.raises(ValueError, match="attention mask"):
            model(ids, attention_mask=square)
        with pytest.raises(ValueError, match="new_cache"):
            model.generate(ids, max_new_tokens=3, do_sample=False)
        right = ones.clone()
        right[1, -5:] = 0
        with pytest.raises(ValueError, match="padded"):
            model.generate(
                ids, attention_mask=right, max_new_tokens=3, past_key_values=handle.new_cache()
            )
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.1
        with pytest.raises(ValueError, match="dropout"):
            model.train()(ids)
