"""Writes llama-gqa/preference.json and preference.safetensors: DPO and ORPO on two pairs, made with PyTorch in float64.

    pip install torch transformers==5.24.* peft==0.21.* trl==1.16.* safetensors numpy
    python tests/golden/make_preference.py

The model is llama-gqa with the adapter in its folder lora, dense attention, no dropout. The formulas are those of TRL's
DPOTrainer (sigmoid loss, the adapter switched off as reference) and ORPOTrainer, written out here in float64. The JSON file
holds the pairs (ids of prompt, chosen and rejected answer), and for each objective beta, `loss`, the rewards of each pair,
and `losses`, those before each of ten AdamW steps (lr 1e-3, weight decay 0.01 on every tensor, no clipping). The other file
holds `OBJECTIVE.grad.NAME`, the gradients of the first step. As a check of this script, the loss must be the one that TRL's
own code computes in float32.
"""
import collections
import json
import pathlib
import types

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

FOLDER = pathlib.Path(__file__).parent / "llama-gqa"
VOCAB, STEPS, BETA = 320, 10, 0.25
LENGTHS = [(9, 7, 12), (14, 20, 5)]  # prompt, chosen, rejected


def rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def causal(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **_):
    """Plain causal attention in the type of its inputs; transformers' own softmax runs in float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) * scaling
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).contiguous(), None


def open_model(patch=lambda model: None):
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    patch(model)
    return PeftModel.from_pretrained(model, FOLDER / "lora", is_trainable=True)


def pairs():
    torch.manual_seed(7)
    draw = lambda n: torch.randint(3, VOCAB, (n,)).tolist()
    return [dict(prompt=draw(p), chosen=draw(c), rejected=draw(r)) for p, c, r in LENGTHS]


def log_probs(model, ids):
    """log p of each token after the first."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def answer(model, pair, key):
    """log p of each token of an answer, and of each token of prompt and answer."""
    all_tokens = log_probs(model, pair["prompt"] + pair[key])
    return all_tokens[len(pair["prompt"]) - 1:], all_tokens


def dpo(model, data):
    losses, chosen, rejected = [], [], []
    for pair in data:
        policy = [answer(model, pair, key)[0].sum() for key in ("chosen", "rejected")]
        with torch.no_grad(), model.disable_adapter():
            reference = [answer(model, pair, key)[0].sum() for key in ("chosen", "rejected")]
        rewards = [BETA * (p - r) for p, r in zip(policy, reference)]
        losses.append(-F.logsigmoid(rewards[0] - rewards[1]))
        chosen.append(rewards[0])
        rejected.append(rewards[1])
    return torch.stack(losses).mean(), chosen, rejected


def log1mexp(x):
    return torch.log(-torch.expm1(x))


def orpo(model, data):
    ratios, chosen, rejected, nll = [], [], [], []
    for pair in data:
        (c, all_chosen), (r, _) = answer(model, pair, "chosen"), answer(model, pair, "rejected")
        c, r = c.mean(), r.mean()
        ratios.append(F.logsigmoid((c - r) - (log1mexp(c) - log1mexp(r))))
        nll.append(-all_chosen)
        chosen.append(BETA * c)
        rejected.append(BETA * r)
    return torch.cat(nll).mean() - BETA * torch.stack(ratios).mean(), chosen, rejected


def run(loss_of, data):
    model = open_model().double()
    model.get_base_model().config._attn_implementation = "causal64"
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    out, grads = dict(beta=BETA, losses=[]), {}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, chosen, rejected = loss_of(model, data)
        loss.backward()
        if step == 0:
            out |= dict(loss=loss.item(), rewards_chosen=[x.item() for x in chosen], rewards_rejected=[x.item() for x in rejected])
            grads = {n.replace(".default", ""): p.grad.float().contiguous().clone() for n, p in trained.items()}
        optimizer.step()
        out["losses"].append(loss.item())
    return out, grads


def padded(data):
    """Chosen sequences, then rejected ones, padded at the end, with their masks."""
    rows = [(p["prompt"], p[key]) for key in ("chosen", "rejected") for p in data]
    longest = max(len(a) + len(b) for a, b in rows)
    fill = lambda row: torch.tensor(row + [0] * (longest - len(row)))
    ids = torch.stack([fill(a + b) for a, b in rows])
    attention = torch.stack([fill([1] * len(a + b)) for a, b in rows])
    completion = torch.stack([fill([0] * len(a) + [1] * len(b)) for a, b in rows])
    return ids, attention, completion


def trl_dpo(data):
    """The loss and the metrics of TRL's DPOTrainer."""
    from trl import DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    model = open_model(lambda m: add_fused_lm_head(m, outputs=("log_probs", "entropy", "mean_logits", "is_top1")))
    same = lambda x: x
    accelerator = types.SimpleNamespace(
        device="cpu", gather=same, gather_for_metrics=same, unwrap_model=lambda m, **_: m)
    trainer = types.SimpleNamespace(
        accelerator=accelerator, model=model, ref_model=None, beta=BETA, aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=False, f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0],
        use_weighting=False, label_smoothing=0.0, _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _total_train_tokens=0, _tp_size=1,
        args=types.SimpleNamespace(gradient_checkpointing=False, gradient_checkpointing_kwargs=None))
    ids, attention, completion = padded(data)
    inputs = dict(input_ids=ids, attention_mask=attention, completion_mask=completion)
    loss = DPOTrainer._compute_loss(trainer, model, inputs, False)
    return loss.item(), trainer._metrics["train" if model.training else "eval"]


def trl_orpo(data):
    """The loss of TRL's ORPOTrainer."""
    from trl.experimental.orpo import ORPOTrainer

    ids, attention, completion = padded(data)
    labels = ids.masked_fill(completion == 0, -100)
    n = len(data)
    batch = {}
    for key, rows in (("chosen", slice(0, n)), ("rejected", slice(n, None))):
        batch |= {f"{key}_input_ids": ids[rows], f"{key}_attention_mask": attention[rows], f"{key}_labels": labels[rows]}
    trainer = types.SimpleNamespace(
        is_encoder_decoder=False, padding_value=0, aux_loss_enabled=False, beta=BETA,
        accelerator=types.SimpleNamespace(device="cpu"), concatenated_inputs=ORPOTrainer.concatenated_inputs,
        get_batch_logps=ORPOTrainer.get_batch_logps)
    chosen, rejected, _, _, nll = ORPOTrainer.concatenated_forward(trainer, open_model(), batch)
    losses, *rewards = ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)
    return (nll - losses.mean()).item(), rewards


def main():
    data = pairs()
    found_dpo, metrics = trl_dpo(data)
    found_orpo, rewards = trl_orpo(data)
    modeling_llama.LlamaRMSNorm.forward = rms_norm
    ALL_ATTENTION_FUNCTIONS.register("causal64", causal)
    out, tensors = dict(pairs=data), {}
    for name, loss_of in (("dpo", dpo), ("orpo", orpo)):
        out[name], grads = run(loss_of, data)
        tensors |= {f"{name}.grad.{n}": g for n, g in grads.items()}
        print(name, out[name]["losses"][0], out[name]["losses"][-1], len(grads), "gradients")
    mean = lambda values: sum(values) / len(values)
    for name, theirs, ours in (
        ("DPO loss", found_dpo, out["dpo"]["loss"]),
        ("DPO chosen reward", metrics["rewards/chosen"][0], mean(out["dpo"]["rewards_chosen"])),
        ("DPO rejected reward", metrics["rewards/rejected"][0], mean(out["dpo"]["rewards_rejected"])),
        ("ORPO loss", found_orpo, out["orpo"]["loss"]),
        ("ORPO chosen reward", rewards[0].mean().item(), mean(out["orpo"]["rewards_chosen"])),
        ("ORPO rejected reward", rewards[1].mean().item(), mean(out["orpo"]["rewards_rejected"])),
    ):
        print(f"{name}: TRL {theirs:.7f}, here {ours:.7f}")
        assert abs(theirs - ours) < 1e-4 * max(1, abs(ours)), f"{name} is not TRL's"
    (FOLDER / "preference.json").write_text(json.dumps(out, indent=1) + "\n")
    save_file(tensors, FOLDER / "preference.safetensors")


main()
