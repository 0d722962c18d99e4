"""Generation with the compressed cache, against the golden cases and against the engine."""

import json

import pytest
import torch
from conftest import CASES, Golden, cases, enable, forward, wide_norms

from longreach_torch import Lrsa, LrsaCache, enable_lrsa
from longreach_torch import attention as attention_module
from longreach_torch import cache as cache_module

WITH_MODEL = cases("dense.logits")


def greedy(model, prompt, cache, count=40, chunk=None):
    """Greedy tokens after a prompt, which enters whole or in chunks."""
    with torch.no_grad():
        forward(model, prompt)  # what dynamic RoPE remembers of longer texts goes
        parts = list(prompt.split(chunk or prompt.shape[1], dim=1))
        text = []
        while len(text) < count:
            for part in parts:
                logits = model(part, past_key_values=cache, use_cache=True).logits[:, -1]
            parts = [logits.argmax(-1, keepdim=True)]
            text.append(parts[0].item())
    return text


def has_length_dependent_rope(model):
    kinds = [getattr(module, "rope_type", None) for module in model.modules()]
    return "dynamic" in kinds or "longrope" in kinds


@pytest.mark.parametrize("name", WITH_MODEL)
@pytest.mark.parametrize("chunk", [None, 1, 23])
def test_greedy_text_equals_the_golden_one(name, chunk):
    golden = Golden(name, folder=CASES)
    for mode, settings in golden.modes.items():
        if not settings:
            continue
        wanted = golden.tensors.get(f"{mode}.generated_cached", golden.tensors[f"{mode}.generated"])
        model = golden.model(torch.float64)
        with wide_norms(model), enable(model, settings) as handle:
            # Where frequencies depend on the length, a first chunk is rotated as a short text.
            size = None if has_length_dependent_rope(model) else chunk
            text = greedy(model, golden.prompt, handle.new_cache(), chunk=size)
        assert text == wanted.tolist(), mode


@pytest.mark.parametrize("name", WITH_MODEL)
def test_greedy_text_equals_the_engines(name, engine, tmp_path):
    golden = Golden(name, folder=CASES)
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(golden.prompt.tolist()))
    config = json.loads((golden.folder / "config.json").read_text())
    for settings in filter(None, golden.modes.values()):
        flags = [part for key, value in settings.items() for part in (f"--{key}", value)]
        said = engine(
            *("generate", "--model", golden.folder, "--ids", ids, "--device", "cpu"),
            *("--temp", 0, "--max-tokens", 40, "--ignore-eos", "--attention", "lrsa", *flags),
        )
        model = golden.model(torch.float32)
        with enable(model, settings) as handle:
            text = greedy(model, golden.prompt, handle.new_cache())
        assert text == said["ids"], config["model_type"]


@pytest.mark.parametrize("name", ["llama-gqa", "gemma3", "olmo3"])
def test_generate_takes_the_cache(name):
    golden = Golden(name)
    model = golden.model(torch.float64)
    settings = golden.modes["lrsa-4-16-0.25"]
    with wide_norms(model), enable_lrsa(model, **settings) as handle:
        cache = handle.new_cache()
        out = model.generate(
            golden.prompt, max_new_tokens=40, min_new_tokens=40, do_sample=False,
            past_key_values=cache, pad_token_id=0,
        )  # fmt: skip
    new = out[0, golden.prompt.shape[1] :]
    assert new.tolist() == golden.tensors["lrsa-4-16-0.25.generated"].tolist()
    # The last token was never fed.
    n = out.shape[1] - 1
    full = [layer for layer in cache.layers if hasattr(layer, "settings")]
    assert full
    assert all(layer.keys.shape[2] == Lrsa(**settings).cache_length(n) for layer in full)
    assert cache.get_seq_length() == n


@pytest.mark.parametrize("chunk", [1, 7, 33, 64])
def test_chunks_give_the_logits_of_the_whole_text(chunk):
    golden = Golden("qwen3-qknorm")
    model = golden.model(torch.float64)
    with enable_lrsa(model, 3, 10, 0.4) as handle, torch.no_grad():
        whole = model(golden.ids).logits
        cache = handle.new_cache()
        parts = [
            model(part, past_key_values=cache).logits for part in golden.ids.split(chunk, dim=1)
        ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_under_autocast_the_cache_selects_what_the_attention_selects(monkeypatch):
    found = {}

    def watch(module):
        select, positions = module.select_kept, found.setdefault(module, [])

        def selected(*arguments):
            positions.append(select(*arguments))
            return positions[-1]

        monkeypatch.setattr(module, "select_kept", selected)

    watch(attention_module)
    watch(cache_module)
    golden = Golden("llama-gqa")
    model = golden.model(torch.float32)
    ids = torch.randint(100, (4, 500), generator=torch.Generator().manual_seed(0))
    with enable_lrsa(model, 3, 10, 0.4) as handle, torch.autocast("cpu", torch.bfloat16):
        model(ids, past_key_values=handle.new_cache())
    pairs = list(zip(found[attention_module], found[cache_module], strict=True))
    assert pairs
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_the_cache_decides_what_its_chunks_see(keep):
    golden = Golden("llama-gqa")
    model = golden.model(torch.float64)
    cache = LrsaCache(model.config, 3, 10, 0.4)
    with torch.no_grad():
        with enable_lrsa(model, 3, 10, 0.4):
            whole = model(golden.ids).logits
        with enable_lrsa(model, 4, 16, keep):
            parts = [model(p, past_key_values=cache).logits for p in golden.ids.split(50, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_dense_steps_see_all_that_a_cache_holds():
    golden = Golden("llama-gqa")
    model = golden.model(torch.float64)
    with enable_lrsa(model, 4, 16, 1.0) as handle, torch.no_grad():
        with handle.dense():
            whole = model(golden.ids).logits
        for dense in (True, False):
            cache = handle.new_cache()
            parts = []
            for part in golden.ids.split(45, dim=1):
                if dense:
                    with handle.dense():
                        parts.append(model(part, past_key_values=cache).logits)
                else:
                    parts.append(model(part, past_key_values=cache).logits)
            torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_beams_move_with_the_cache_and_cropping_is_refused():
    golden = Golden("llama-gqa")
    model = golden.model(torch.float64)
    beams = {"max_new_tokens": 30, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with enable_lrsa(model, 4, 16, 0.25) as handle:
        cache = handle.new_cache()
        out = model.generate(golden.prompt, past_key_values=cache, **beams)
        assert out.shape[1] > golden.prompt.shape[1]
        assert torch.equal(out, model.generate(golden.prompt, use_cache=False, **beams))
        with pytest.raises(NotImplementedError, match="cropped"):
            cache.crop(-1)
        cache.reset()
        assert cache.get_seq_length() == 0
