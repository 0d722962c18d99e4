#!/usr/bin/env python3
"""Compares a longreach binary with Hugging Face transformers and PEFT on random small models.

    pip install torch "transformers==4.57.*" peft safetensors numpy
    cargo build
    scripts/compare-with-transformers.py target/debug/longreach [--device cpu] [--seed 0] [--models llama,qwen3] [--tokens 97,61]
        [--adapters lora,dora,saved] [--lrsa 4:16:0.25,3:10:0.4] [--loose 1] [--keep-files DIR]

For every model and attention (dense and each S:L:r) it compares, without and with each adapter that PEFT wrote:

    probe     logits, loss, every gradient and the kept positions of a batch with row lengths --tokens
    generate  forty greedy tokens, with several prefill chunk sizes
    train     the losses of ten AdamW steps, on all weights and on the adapter
    saved     the model that train saved, loaded by transformers or PEFT: same logits as in longreach

transformers computes in float64 from the same float32 weights (with RMS norms that stay in float64), each
row alone. LRSA is the mask below, written from LagKV's equations (arXiv 2504.04704, 7 to 13). Two float32 programs may keep
different tokens if two scores nearly tie, and choose different ones if two logits do. So a model with any small margin
is drawn again with the next seed, and training steps from the first with a small margin on are skipped.

The exit status is 1 if anything differs by more than its bound (times --loose, for example 3 for a GPU).
"""
import argparse, collections, contextlib, copy, json, pathlib, subprocess, sys, tempfile

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

SIZES = dict(hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=307, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
MODELS = {
    "llama": LlamaConfig(**SIZES, rope_theta=1e4, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SIZES, rms_norm_eps=1e-5, tie_word_embeddings=True),
    "llama-biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5),
    "llama-head-dim": LlamaConfig(**(SIZES | dict(num_attention_heads=3, num_key_value_heads=1)), head_dim=40),
    "llama-linear-rope": LlamaConfig(**SIZES, rope_scaling=dict(rope_type="linear", factor=4.0)),
    "llama3-rope": LlamaConfig(**SIZES, rope_theta=5e5, tie_word_embeddings=True, rope_scaling=LLAMA3),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, rope_theta=1e6, tie_word_embeddings=True),
    "qwen2-untied": Qwen2Config(**(SIZES | dict(num_key_value_heads=4)), tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=32, rope_theta=1e6, tie_word_embeddings=False),
    "qwen3-tied": Qwen3Config(**(SIZES | dict(num_key_value_heads=1)), head_dim=24, tie_word_embeddings=True),
}
ADAPTERS = {
    "lora": dict(r=3, lora_alpha=7, target_modules="all-linear"),
    "dora": dict(r=3, lora_alpha=7, target_modules=r".*\.(self_attn|mlp)\.(?!gate_proj)[a-z_]+_proj", use_dora=True,
                 use_rslora=True),
    "saved": dict(r=2, target_modules="all-linear", exclude_modules=["o_proj"],
                  modules_to_save=["embed_tokens", "lm_head", "model.norm"]),
}
STEPS, GENERATED, IGNORED = 10, 40, -100
BOUNDS = {"logits": 3e-5, "loss": 2e-6, "gradient": 1e-5, "dense losses": 1e-5, "LRSA losses": 1e-4, "kept": 0.5,
          "generated": 0.5, "saved logits": 3e-5}
COUNTS = ("kept", "generated")  # counts of differences: none are allowed, whatever --loose
SMALLEST_SCORE_MARGIN, SMALLEST_LOGIT_GAP = 1e-6, 1e-3

Lrsa = collections.namedtuple("Lrsa", "sink lag keep")


# --- The reference --------------------------------------------------------------------------------------------------------

def scores(states, lrsa):
    """One side's scores [B, Hk, P-1, L] of states [B, Hk, n, d]: every full partition scored by the next one."""
    n_partitions = (states.shape[2] - lrsa.sink) // lrsa.lag
    blocks = states[:, :, lrsa.sink:lrsa.sink + n_partitions * lrsa.lag].unflatten(2, (n_partitions, lrsa.lag))
    judge = blocks[:, :, 1:]
    low, high = judge.amin(3, keepdim=True), judge.amax(3, keepdim=True)
    flat = high - low < 1e-6
    scaled = torch.where(flat, 0.0, (blocks[:, :, :-1] - low) / torch.where(flat, 1.0, high - low))
    return torch.softmax(scaled.std(-1), -1)


class Watch:
    """Records the selections of forward passes: the kept positions of each layer and the smallest margin between kept and dropped."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.kept, self.margin = [], float("inf")

    def select(self, key, value, lrsa):
        """Kept positions [B, Hk, P-1, K], ascending, of keys after RoPE and values; None with fewer than two partitions."""
        if key.shape[2] < lrsa.sink + 2 * lrsa.lag:
            return None
        total, k = (scores(key, lrsa) + scores(value, lrsa)), int(lrsa.keep * lrsa.lag)
        ranked = total.sort(dim=-1, descending=True, stable=True)
        if k < lrsa.lag:
            self.margin = min(self.margin, (ranked.values[..., k - 1] - ranked.values[..., k]).min().item())
        starts = lrsa.sink + torch.arange(total.shape[2]) * lrsa.lag
        kept = ranked.indices[..., :k].sort(-1).values + starts[:, None]
        self.kept.append(kept)
        return kept


WATCH = Watch()


def visible(key, value, lrsa):
    """The mask of visible keys by query: [1 or B, 1 or Hk, n, n]."""
    at = torch.arange(key.shape[2])
    causal = at[None] <= at[:, None]
    if lrsa is None:
        return causal[None, None]
    partition = torch.div(at - lrsa.sink, lrsa.lag, rounding_mode="floor")
    near = (at < lrsa.sink)[None] | (partition[None] >= partition[:, None] - 1) | (at < lrsa.sink)[:, None]
    mask = (causal & near)[None, None]
    kept = WATCH.select(key.detach(), value.detach(), lrsa)
    if kept is None:
        return mask
    is_kept = torch.zeros(key.shape[:3], dtype=torch.bool).scatter_(2, kept.flatten(2), True)
    return mask | (causal & ~near) & is_kept[:, :, None]


def attention(lrsa):
    """An attention function for transformers."""
    def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
        groups = query.shape[1] // key.shape[1]
        mask = visible(key, value, lrsa).expand(-1, key.shape[1], -1, -1).repeat_interleave(groups, 1)
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        weights = (query @ key.transpose(-1, -2) * scaling).masked_fill(~mask, float("-inf"))
        return (torch.softmax(weights, -1) @ value).transpose(1, 2).contiguous(), None
    return forward


def rms_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


for norm in (modeling_llama.LlamaRMSNorm, modeling_mistral.MistralRMSNorm, modeling_qwen2.Qwen2RMSNorm,
             modeling_qwen3.Qwen3RMSNorm):
    norm.forward = rms_norm


def in_float64(model, lrsa):
    """A float64 copy whose attention is dense or LRSA."""
    name = f"lrsa-{lrsa}" if lrsa else "dense-float64"
    ALL_ATTENTION_FUNCTIONS.register(name, attention(lrsa))
    model = copy.deepcopy(model).double()
    (model.get_base_model() if isinstance(model, PeftModel) else model).config._attn_implementation = name
    return model


def forward(model, rows, labels):
    """Logits of each row alone, and the mean loss over all labels not ignored."""
    logits = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows]
    total, count = 0.0, 0
    for row, wanted in zip(logits, labels):
        wanted = torch.tensor(wanted[1:], dtype=torch.long)
        total = total + torch.nn.functional.cross_entropy(row[:-1], wanted, ignore_index=IGNORED, reduction="sum")
        count += (wanted != IGNORED).sum()
    return logits, total / count


def greedy(model, prompt):
    """The greedy continuation and the smallest gap between the best two logits."""
    ids, gap = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(GENERATED):
            best = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
            gap = min(gap, (best.values[0] - best.values[1]).item())
            ids.append(best.indices[0].item())
    return ids[len(prompt):], gap


def ten_losses(model, rows, labels):
    """Losses of AdamW steps, up to the first with a small selection margin."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        WATCH.margin = float("inf")
        optimiser.zero_grad()
        loss = forward(model, rows, labels)[1]
        if WATCH.margin < SMALLEST_SCORE_MARGIN / 2:
            break
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# --- Longreach ------------------------------------------------------------------------------------------------------------

class Longreach:
    """Runs the binary in its own folder."""

    def __init__(self, binary, device, folder):
        self.binary, self.device, self.folder = binary, device, pathlib.Path(folder)

    def run(self, verb, *flags):
        command = [self.binary, verb, "--device", self.device, *map(str, flags)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nfailed:\n{done.stderr}")
        return done.stdout

    def file(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def probe(self, model, rows, labels=None, flags=()):
        """The tensors that `probe` writes."""
        out = self.folder / "probe.safetensors"
        flags = [*flags, "--ids", self.file("ids.json", json.dumps(rows)), "--out", out]
        if labels:
            flags += ["--labels", self.file("labels.json", json.dumps(labels)), "--grads"]
        self.run("probe", "--model", model, *flags)
        return load_file(out)

    def generate(self, model, prompt, flags=()):
        ids = self.file("prompt.json", json.dumps([prompt]))
        out = self.run("generate", "--model", model, "--ids", ids, "--max-tokens", GENERATED, "--ignore-eos", "--json", *flags)
        return json.loads(out)["ids"]

    def train(self, model, rows, labels, out, flags=()):
        """Losses of a run like [`ten_losses`]; the result is saved in the folder `out`."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        lines = (json.dumps({"input_ids": r, "labels": l}) for r, l in zip(rows, labels))
        (data / "train.jsonl").write_text("".join(line + "\n" for line in lines))
        self.run("train", "--model", model, "--data", data, "--out", out, "--steps", STEPS, "--batch-size", len(rows),
                 "--lr", 1e-3, "--schedule", "constant", "--weight-decay", 0.01, "--decay", "all", "--clip", 0, *flags)
        return [json.loads(line)["loss"] for line in open(out / "metrics.jsonl")]


def attention_flags(lrsa):
    if lrsa is None:
        return ["--attention", "dense"]
    return ["--attention", "lrsa", "--sink", lrsa.sink, "--lag", lrsa.lag, "--keep", lrsa.keep]


# --- The comparison -------------------------------------------------------------------------------------------------------

class Table:
    """Worst errors by quantity and attention."""

    def __init__(self, loose):
        self.loose, self.worst, self.failures = loose, collections.defaultdict(lambda: (0.0, "", 0)), []

    def bound(self, quantity):
        return BOUNDS[quantity] * (1.0 if quantity in COUNTS else self.loose)

    def add(self, quantity, where, error):
        worst, at, count = self.worst[quantity]
        self.worst[quantity] = (error, where, count + 1) if not error <= worst else (worst, at, count + 1)
        bound = self.bound(quantity)
        if not error <= bound:
            self.failures.append(f"{where}: {quantity} differs by {error:.2e}, more than {bound:.0e}")
            print("FAILED", self.failures[-1], flush=True)

    def print(self):
        print(f"{'quantity':14} {'compared':>8} {'worst':>9} {'bound':>7}  where")
        for quantity, (error, where, count) in self.worst.items():
            print(f"{quantity:14} {count:8} {error:9.1e} {self.bound(quantity):7.0e}  {where}")
        print(f"{len(self.failures)} failures")


def relative(found, wanted):
    return float(np.linalg.norm(np.float64(found) - wanted) / np.linalg.norm(wanted))


def random_model(config, seed, adapters):
    """A float32 model and adapters on it, with weights large enough for clear margins."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager")
    for name, p in model.named_parameters():
        p.data = torch.randn(p.shape) * 0.12 + (1.0 if "norm" in name else 0.0)
    model.tie_weights()
    adapted = {}
    for kind in adapters:
        config = LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[kind])
        adapted[kind] = get_peft_model(copy.deepcopy(model), config).float()
        for name, p in adapted[kind].named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p.data = torch.randn(p.shape) * 0.06
            elif p.requires_grad:
                p.data += torch.randn(p.shape) * 0.03
    return model.float(), adapted


def random_rows(vocab, lengths, seed):
    """Token ids and labels of some rows; about a third of the labels are ignored."""
    g = np.random.default_rng(seed)
    rows = [g.integers(0, vocab, n).tolist() for n in lengths]
    ignored = [(g.random(n) < 0.1) | (np.arange(n) < n // 4) for n in lengths]
    return rows, [[IGNORED if i else t for t, i in zip(row, ig)] for row, ig in zip(rows, ignored)]


def is_clear(models, modes, rows, prompt):
    """Whether every selection and every greedy choice has a margin larger than float32 rounding."""
    for model in models:
        for lrsa in modes:
            WATCH.reset()
            reference = in_float64(model, lrsa)
            with torch.no_grad():
                for row in rows:
                    reference(input_ids=torch.tensor([row]), use_cache=False)
            gap = greedy(reference, prompt)[1] if WATCH.margin > SMALLEST_SCORE_MARGIN else 0.0
            if min(WATCH.margin / SMALLEST_SCORE_MARGIN, gap / SMALLEST_LOGIT_GAP) < 1.0:
                return False
    return True


def file_name(name):
    """The name of a trained parameter in files: PEFT's, or the model's if its module is saved whole."""
    if ".modules_to_save." in name:
        return name.replace(".modules_to_save.default", "").removeprefix("base_model.model.")
    return name.replace("magnitude_vector.default.weight", "magnitude_vector").replace(".default", "")


def compare_probe(table, where, found, reference, rows, labels):
    """One forward and backward pass."""
    WATCH.reset()
    logits, loss = forward(reference, rows, labels)
    loss.backward()
    for i, row in enumerate(logits):
        error = np.abs(found["logits"][i, :len(row)] - row.detach().numpy()).max()
        table.add("logits", f"{where} row {i}", float(error))
        if np.any(found["logits"][i, len(row):]):
            table.add("logits", f"{where} padding of row {i}", float("nan"))
    table.add("loss", where, abs(float(found["loss"][0]) / loss.item() - 1.0))
    wanted = {file_name(n): p.grad for n, p in reference.named_parameters() if p.requires_grad}
    if set(wanted) != {n[5:] for n in found if n.startswith("grad.")}:
        table.add("gradient", f"{where}: names", float("nan"))
        return
    for name, grad in wanted.items():
        got = found[f"grad.{name}"]
        error = relative(got, grad.numpy()) if got.shape == tuple(grad.shape) else float("nan")
        table.add("gradient", f"{where} {name}", error)
    compare_kept(table, where, found, len(rows))


def compare_kept(table, where, found, n_rows):
    """Compares kept positions. WATCH has them by row and layer, for rows with two partitions."""
    layers = [n for n in found if n.startswith("kept.")]
    in_reference = sum(int((found["kept.0"][b] >= 0).any()) for b in range(n_rows)) if layers else 0
    if in_reference * len(layers) != len(WATCH.kept):
        table.add("kept", f"{where}: number of selections", float("nan"))
        return
    wanted = iter(WATCH.kept)
    for b in range(n_rows):
        for layer in range(len(layers)):
            got = found[f"kept.{layer}"][b]
            if (got >= 0).any():
                one = next(wanted)[0].numpy()
                got = got[:, :one.shape[1]]
                differ = int((got != one).sum()) + int((found[f"kept.{layer}"][b][:, one.shape[1]:] >= 0).sum())
                table.add("kept", f"{where} row {b} layer {layer}", differ)


def compare(longreach, table, name, config, seed, modes, lengths, adapters):
    """All comparisons of one model."""
    rows, labels = random_rows(config.vocab_size, lengths, seed)
    prompt = rows[0][:max(1, lengths[0] * 2 // 3)]
    model, adapted = random_model(config, seed, adapters)
    if not is_clear((model, *adapted.values()), modes, rows, prompt):
        return False
    folder = longreach.folder / f"{name}-{seed}"
    model.save_pretrained(folder)
    for kind, peft_model in adapted.items():
        peft_model.save_pretrained(folder / kind, save_embedding_layers=False)
    for lrsa in modes:
        for peft in (None, *adapted):
            where = f"{name} {seed} {'dense' if lrsa is None else ':'.join(map(str, lrsa))}{' ' + peft if peft else ''}"
            flags = attention_flags(lrsa) + (["--adapter", folder / peft] if peft else [])
            reference = in_float64(adapted[peft] if peft else model, lrsa)
            compare_probe(table, where, longreach.probe(folder, rows, labels, flags), reference, rows, labels)
            wanted = greedy(reference, prompt)[0]
            for chunk in (1, 7, 64, 512):
                got = longreach.generate(folder, prompt, [*flags, "--chunk", chunk])
                table.add("generated", f"{where} chunk {chunk}", sum(g != w for g, w in zip(got, wanted, strict=True)))
            compare_training(longreach, table, where, folder, model, reference, lrsa, peft, rows, labels, flags)
    return True


def compare_training(longreach, table, where, folder, model, reference, lrsa, peft, rows, labels, flags):
    """Compares ten training steps and the saved model."""
    saved = longreach.folder / where.replace(" ", "-").replace(":", "-")
    got = longreach.train(folder, rows, labels, saved, [*flags, "--method", "lora" if peft else "full"])
    quantity = "LRSA losses" if lrsa else "dense losses"
    for step, wanted in enumerate(ten_losses(reference, rows, labels)):
        table.add(quantity, f"{where} step {step}", abs(got[step] / wanted - 1.0))
    again = PeftModel.from_pretrained(copy.deepcopy(model), saved) if peft else AutoModelForCausalLM.from_pretrained(saved)
    base, flags = (folder, ["--adapter", saved]) if peft else (saved, [])
    got = longreach.probe(base, rows, flags=flags + attention_flags(None))["logits"]
    with torch.no_grad():
        for i, row in enumerate(forward(in_float64(again, None), rows, labels)[0]):
            table.add("saved logits", f"{where} row {i}", float(np.abs(got[i, :len(row)] - row.numpy()).max()))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("binary")
    a.add_argument("--device", default="cpu")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--models", default=",".join(MODELS))
    a.add_argument("--tokens", default="97,61", help="length of each row of the batch")
    a.add_argument("--adapters", default=",".join(ADAPTERS))
    a.add_argument("--lrsa", default="4:16:0.25,3:10:0.4", help="S:L:r, comma-separated")
    a.add_argument("--loose", type=float, default=1.0, help="factor on the bounds of real numbers")
    a.add_argument("--keep-files", help="existing folder to keep models and results in")
    a = a.parse_args()
    modes = [None] + [Lrsa(int(s), int(l), float(r)) for s, l, r in (m.split(":") for m in a.lrsa.split(",") if m)]
    lengths, table = [int(n) for n in a.tokens.split(",")], Table(a.loose)
    adapters = [kind for kind in a.adapters.split(",") if kind]
    place = contextlib.nullcontext(a.keep_files) if a.keep_files else tempfile.TemporaryDirectory()
    with place as folder:
        longreach = Longreach(a.binary, a.device, folder)
        for name in a.models.split(","):
            seeds = (s for s in range(a.seed, a.seed + 1000)
                     if compare(longreach, table, name, MODELS[name], s, modes, lengths, adapters))
            seed = next(seeds, None)
            if seed is None:
                sys.exit(f"{name}: no seed has clear margins; try fewer --tokens or fewer --lrsa")
            print(f"{name}: compared with seed {seed}", flush=True)
    table.print()
    sys.exit(1 if table.failures else 0)


if __name__ == "__main__":
    main()
