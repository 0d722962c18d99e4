"""Writes adapters/NAME/: small adapters that PEFT saved, and what PEFT computes with them in float64.

    pip install torch transformers==4.57.* peft==0.21.* safetensors numpy
    python tests/golden/make_adapter_traces.py [NAME ...]

Each folder holds the adapter as `save_pretrained` wrote it, with random values in every tensor, and expected.safetensors: the
`logits` of the first 24 tokens of the first row, and for both rows with their labels the `loss`, `grad.NAME` of every trained
tensor under its name in the adapter's file (or the model's, for a module saved whole), and `losses`, those before each of
ten AdamW steps (lr 1e-3, weight decay 0.01 on every tensor, no clipping). Attention is dense, dropout 0. base.json names the
golden model, whose golden.safetensors has ids and labels.
"""
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

HERE = pathlib.Path(__file__).parent
TOKENS, STEPS = 24, 10
ADAPTERS = {
    "dora": ("llama-gqa", dict(r=4, lora_alpha=8, target_modules="all-linear", use_dora=True)),
    # Biases, a tied head, a pattern for modules, and ranks and scales that differ. PEFT sorts the keys of patterns when it
    # saves them, and their order counts: these are sorted.
    "dora-patterns": ("qwen2-bias-tied", dict(
        r=3, lora_alpha=5, target_modules=r".*\.(self_attn\.(q|v)_proj|mlp\.(?!up)[a-z]+_proj)", use_dora=True, use_rslora=True,
        rank_pattern={r"layers\.1\..*": 5, "q_proj": 2}, alpha_pattern={".*down_proj": 9})),
    "rslora": ("llama-gqa", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True)),
    "some-layers": ("llama-gqa", dict(
        r=2, target_modules=["c_attn", "q_proj", "up_proj", "o_proj"], layers_to_transform=[0, 2], layers_pattern="layers",
        exclude_modules=["2.self_attn.o_proj"])),
    "saved-head": ("llama-gqa", dict(r=2, target_modules=["v_proj"], modules_to_save=["lm_head", "model.norm"])),
    "saved-tied": ("qwen2-bias-tied", dict(
        r=2, target_modules=["v_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "untied": ("qwen2-bias-tied", dict(r=2, target_modules=["v_proj"], modules_to_save=["embed_tokens"])),
}


def rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def causal(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **_):
    """Plain causal attention in the type of its inputs; transformers' own softmax runs in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * scaling
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).contiguous(), None


def base_of(case):
    return AutoModelForCausalLM.from_pretrained(HERE / case, dtype=torch.float32)


def file_name(name):
    """The name of a parameter in the adapter's file."""
    prefix = "base_model.model."
    if ".modules_to_save." in name:
        return name.replace(".modules_to_save.default", "").removeprefix(prefix)
    return name.replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector").replace(".default", "")


def make(name, case, settings):
    folder = HERE / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(len(name))
    model = get_peft_model(base_of(case), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.requires_grad:
                spread = 0.2 if "lora_" in key and "magnitude" not in key else 0.1 * p.std().item() + 0.02
                p += spread * torch.randn_like(p)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        config[key] = sorted(config[key]) if isinstance(config[key], list) else config[key]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "base.json").write_text(json.dumps(case) + "\n")

    model = PeftModel.from_pretrained(base_of(case), folder, is_trainable=True).double()
    model.get_base_model().config._attn_implementation = "causal64"
    golden = load_file(HERE / case / "golden.safetensors")
    ids, labels = golden["input_ids"].long(), golden["labels"].long()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    out, losses = {}, []
    with torch.no_grad():
        out["logits"] = model(input_ids=ids[:1, :TOKENS], use_cache=False).logits[0].float()
    for step in range(STEPS):
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        if step == 0:
            out["loss"] = loss.detach().float()[None]
            out |= {f"grad.{file_name(n)}": p.grad.float().contiguous().clone() for n, p in trained.items()}
        optimizer.step()
        losses.append(loss.item())
    out["losses"] = torch.tensor(losses, dtype=torch.float32)
    save_file(out, folder / "expected.safetensors")
    print(name, losses[0], losses[-1], len(trained), "trained tensors")


modeling_llama.LlamaRMSNorm.forward = rms_norm
modeling_qwen2.Qwen2RMSNorm.forward = rms_norm
ALL_ATTENTION_FUNCTIONS.register("causal64", causal)
for name in sys.argv[1:] or ADAPTERS:
    make(name, *ADAPTERS[name])
