#!/usr/bin/env python3
"""Answers the questions of `longreach eval needle` or `eval qa` with Hugging Face transformers and compares.

    pip install torch "transformers==4.57.*" peft safetensors numpy gguf
    longreach eval needle --model M.gguf --samples-out samples.jsonl [more flags]
    longreach eval needle --model M.gguf --out DIR [the same flags]
    scripts/evaluate-with-transformers.py M.gguf samples.jsonl DIR/report.json [--first N]

transformers loads the GGUF file, tokenizer and chat template itself, in float32. Dense answers come from its own
generation; compressed ones from a forward of the whole text per token, with LRSA as a mask (scripts/compare-with-transformers.py).
This script also computes the scores: exact match and F1 with transformers' copy of SQuAD's functions, numbers with a regular expression.

The exit status is 1 if the means differ by more than twice the standard error of their paired difference, or if a score in the
report differs from the one computed here for the report's answer.
"""
import argparse
import importlib.machinery
import importlib.util
import json
import math
import pathlib
import re
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

HERE = pathlib.Path(__file__).resolve().parent


def load_definitions():
    """Loads compare-with-transformers.py as a module."""
    loader = importlib.machinery.SourceFileLoader("compare", str(HERE / "compare-with-transformers.py"))
    spec = importlib.util.spec_from_loader("compare", loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def score(task, answer, expected):
    """The strict score and the partial one."""
    if task == "needle":
        found = re.search(r"[0-9]+", answer)
        number = found.group() if found else ""
        same = [next((i for i, (a, b) in enumerate(zip(number + " ", e + "$")) if a != b)) / len(e) for e in expected]
        return [float(number in expected), max(same)]
    def f1(e):
        special = [text for text in ("yes", "no", "noanswer") if compute_exact(text, e) or compute_exact(text, answer)]
        return 0.0 if task == "hotpotqa" and special and not compute_exact(e, answer) else float(compute_f1(e, answer))
    return [max(float(compute_exact(e, answer)) for e in expected), max(f1(e) for e in expected)]


def answer(model, tokenizer, sample, lrsa, compare):
    """The greedy answer, up to a token that ends the turn."""
    turn = [{"role": "user", "content": sample["prompt"]}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt")
    if lrsa is None:
        out = model.generate(ids, max_new_tokens=sample["max_tokens"], do_sample=False)
        return tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip()
    compare.WATCH.reset()
    for _ in range(sample["max_tokens"]):
        compare.WATCH.kept = []
        with torch.no_grad():
            logits = model(ids, use_cache=False, logits_to_keep=1).logits
        following = logits[0, -1].argmax()
        if following.item() in (tokenizer.eos_token_id, model.generation_config.eos_token_id):
            break
        ids = torch.cat([ids, following.view(1, 1)], 1)
    start = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt").shape[1]
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("samples", type=pathlib.Path)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--first", type=int, help="only the first N questions")
    parser.add_argument("--attentions", default="dense", help="dense, or factors such as 4x (slow: one forward of the whole text per token)")
    args = parser.parse_args()

    report = json.loads(args.report.read_text())
    samples = [json.loads(line) for line in args.samples.read_text().splitlines()][:args.first]
    ours = {(o["attention"], o["id"]): o for o in report["outcomes"]}
    wrong = 0
    for outcome in report["outcomes"]:
        here = score(report["task"], outcome["answer"], outcome["expected"])
        if max(abs(a - b) for a, b in zip(here, outcome["scores"])) > 1e-9:
            wrong += 1
            print(f"{outcome['attention']} {outcome['id']}: {outcome['scores']} for {outcome['answer']!r}, computed here: {here}")
    print(f"scores: {wrong} of {len(report['outcomes'])} answers have a different score here")

    compare = load_definitions()
    dir, file = str(args.model.parent), args.model.name
    tokenizer = AutoTokenizer.from_pretrained(dir, gguf_file=file)
    failed = wrong > 0
    for name in args.attentions.split(","):
        lrsa = None
        model = AutoModelForCausalLM.from_pretrained(dir, gguf_file=file, dtype=torch.float32).eval()
        if name != "dense":
            lrsa = compare.Lrsa(report["sink"], report["lag"], 1 / float(name.removesuffix("x")))
            from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
            ALL_ATTENTION_FUNCTIONS[f"lrsa-{name}"] = compare.attention(lrsa)
            model.set_attn_implementation(f"lrsa-{name}")
        differences, same, means = [], 0, [0.0, 0.0]
        for sample in samples:
            said, our = answer(model, tokenizer, sample, lrsa, compare), ours[name, sample["id"]]
            theirs = score(report["task"], said, sample["answers"])
            differences.append(our["scores"][-1] - theirs[-1])
            means = [means[0] + our["scores"][-1], means[1] + theirs[-1]]
            same += said == our["answer"]
            if said != our["answer"]:
                print(f"  {sample['id']}: ours {our['answer']!r}, theirs {said!r}")
        n = len(samples)
        mean = sum(differences) / n
        error = math.sqrt(sum((d - mean) ** 2 for d in differences) / max(n - 1, 1) / n)
        failed |= abs(mean) > 2 * error + 1e-12
        print(f"{name}: {report['metrics'][-1]} {means[0] / n:.4f} ours, {means[1] / n:.4f} theirs, difference {mean:+.4f} "
              f"± {error:.4f}, {same} of {n} answers identical", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
