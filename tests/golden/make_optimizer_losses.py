"""Writes CASE/optimizer-losses.json: ten training losses of a golden model for each optimiser, made with PyTorch in float64.

    pip install torch transformers==4.57.* peft safetensors numpy
    python tests/golden/make_optimizer_losses.py [llama-gqa]

The model, the batch (both rows of input_ids with their labels) and dense attention are those of CASE/golden.safetensors. SGD is
torch.optim.SGD; Lion is algorithm 2 of arXiv 2302.06675. Every tensor decays and no gradient is clipped. `full` trains every
weight, `lora` the adapter in CASE/lora. Losses are those before each update. As a check of this script, AdamW's losses must be
those that golden.safetensors holds.
"""
import json
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

SETTINGS = {
    "lion": dict(lr=3e-4, betas=(0.9, 0.99), weight_decay=0.01),
    "sgd": dict(lr=5e-2, momentum=0.9, weight_decay=0.01),
}


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv 2302.06675."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                direction = torch.sign(beta1 * m + (1 - beta1) * p.grad)
                p -= group["lr"] * (direction + group["weight_decay"] * p)
                m.copy_(beta2 * m + (1 - beta2) * p.grad)


def rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def causal(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **_):
    """Plain causal attention in the type of its inputs; transformers' own softmax runs in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * scaling
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).contiguous(), None


def losses(folder, lora, make, steps=10):
    golden = load_file(folder / "golden.safetensors")
    ids, labels = golden["input_ids"].long(), golden["labels"].long()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if lora:
        model = PeftModel.from_pretrained(model, folder / "lora", is_trainable=True)
    model = model.double()
    (model.get_base_model() if lora else model).config._attn_implementation = "causal64"
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    known = golden[("lora." if lora else "") + "dense.losses"].double()
    return found, known


def main():
    folder = pathlib.Path(__file__).parent / (sys.argv[1] if len(sys.argv) > 1 else "llama-gqa")
    modeling_llama.LlamaRMSNorm.forward = rms_norm
    ALL_ATTENTION_FUNCTIONS.register("causal64", causal)
    out = {}
    for name, make in {"lion": Lion, "sgd": torch.optim.SGD}.items():
        out[name] = dict(SETTINGS[name])
        for which, lora in (("full", False), ("lora", True)):
            out[name][which], _ = losses(folder, lora, lambda params: make(params, **SETTINGS[name]))
            print(name, which, out[name][which])
    for lora in (False, True):
        adamw = lambda params: torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        found, known = losses(folder, lora, adamw)
        error = (torch.tensor(found, dtype=torch.float64) - known).abs().max().item()
        assert error < 1e-6, f"AdamW's losses are not those of golden.safetensors: {error}"
    (folder / "optimizer-losses.json").write_text(json.dumps(out, indent=1) + "\n")


main()
