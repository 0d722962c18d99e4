"""Writes CASE/optimizer-losses.json: ten training losses of a golden model for each optimiser, made with PyTorch in float64; and
CASE/loraplus.safetensors: the adapter after ten steps with LoRA+.

    pip install torch transformers==4.57.* peft safetensors numpy
    python tests/golden/make_optimizer_losses.py [llama-gqa]

The model, the batch (both rows of input_ids with their labels) and dense attention are those of CASE/golden.safetensors. SGD is
torch.optim.SGD; Lion is algorithm 2 of arXiv 2302.06675; Adafactor is torch.optim.Adafactor with the epsilon that it takes for
float32. AdamW8bit is AdamW whose state goes through bitsandbytes' block-wise dynamic quantisation (blocks of 256 elements of a
tensor) after each step; bitsandbytes itself keeps small tensors in 32 bits, which this does not. `loraplus` is PEFT's
create_loraplus_optimizer with torch.optim.AdamW. Every tensor decays and no gradient is clipped. `full` trains every weight,
`lora` the adapter in CASE/lora. Losses are those before each update. As a check of this script, AdamW's losses must be those that
golden.safetensors holds.
"""
import json
import pathlib
import sys

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

SETTINGS = {
    "lion": dict(lr=3e-4, betas=(0.9, 0.99), weight_decay=0.01),
    "sgd": dict(lr=5e-2, momentum=0.9, weight_decay=0.01),
    "adafactor": dict(lr=1e-2, weight_decay=0.01),
    "adamw8bit": dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
}
LORA_PLUS = dict(lr=1e-3, ratio=16.0, weight_decay=0.01)


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


def dynamic_map(signed):
    """bitsandbytes' dynamic map of 256 levels: within each decade, the middles of even steps, twice as many as in the last."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        boundaries = torch.linspace(0.1, 1, (1 if signed else 2) * 2**exponent + 1, dtype=torch.float64)
        middles = (boundaries[:-1] + boundaries[1:]) / 2 * 10.0 ** (exponent - 6)
        levels += middles.tolist() + ((-middles).tolist() if signed else [])
    assert len(levels) == 256
    return torch.tensor(sorted(levels), dtype=torch.float64)


def quantised(values, levels, block=256):
    """The values after 8 bits: in each block, the nearest level times the largest magnitude."""
    flat = values.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    absmax = blocks.abs().amax(1, keepdim=True)
    parts = blocks / absmax.clamp(min=1e-300)
    codes = (parts[:, :, None] - levels).abs().argmin(2)
    return (levels[codes] * absmax).flatten()[: len(flat)].view_as(values)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with block-wise 8-bit state (arXiv 2110.02861). A step uses the new means before they are rounded."""

    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.signed, self.unsigned, self.t = dynamic_map(True), dynamic_map(False), 0

    @torch.no_grad()
    def step(self):
        self.t += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                m = beta1 * state.get("m", 0) + (1 - beta1) * p.grad
                v = beta2 * state.get("v", 0) + (1 - beta2) * p.grad**2
                p *= 1 - group["lr"] * group["weight_decay"]
                denominator = (v / (1 - beta2**self.t)).sqrt() + group["eps"]
                p -= group["lr"] / (1 - beta1**self.t) * m / denominator
                state["m"], state["v"] = quantised(m, self.signed), quantised(v, self.unsigned)


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
    optimizer = make(model)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    known = golden[("lora." if lora else "") + "dense.losses"].double()
    return found, known, model


def main():
    folder = pathlib.Path(__file__).parent / (sys.argv[1] if len(sys.argv) > 1 else "llama-gqa")
    modeling_llama.LlamaRMSNorm.forward = rms_norm
    ALL_ATTENTION_FUNCTIONS.register("causal64", causal)
    out = {}
    trained = lambda model: [p for p in model.parameters() if p.requires_grad]
    adafactor = lambda params, **settings: torch.optim.Adafactor(
        params, eps=(torch.finfo(torch.float32).eps, 1e-3), **settings)
    optimizers = {"lion": Lion, "sgd": torch.optim.SGD, "adafactor": adafactor, "adamw8bit": AdamW8bit}
    for name, make in optimizers.items():
        out[name] = dict(SETTINGS[name])
        for which, lora in (("full", False), ("lora", True)):
            out[name][which], _, _ = losses(folder, lora, lambda model: make(trained(model), **SETTINGS[name]))
            print(name, which, out[name][which])
    lr, ratio, weight_decay = LORA_PLUS.values()
    plus = lambda model: create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=lr, loraplus_lr_ratio=ratio, loraplus_weight_decay=weight_decay,
        betas=(0.9, 0.999), eps=1e-8)
    found, _, model = losses(folder, True, plus)
    out["loraplus"] = dict(LORA_PLUS, lora=found)
    print("loraplus", found)
    final = {n.replace(".default", ""): p.detach().float().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(final, folder / "loraplus.safetensors")
    for lora in (False, True):
        adamw = lambda model: torch.optim.AdamW(trained(model), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        found, known, _ = losses(folder, lora, adamw)
        error = (torch.tensor(found, dtype=torch.float64) - known).abs().max().item()
        assert error < 1e-6, f"AdamW's losses are not those of golden.safetensors: {error}"
    (folder / "optimizer-losses.json").write_text(json.dumps(out, indent=1) + "\n")


main()
