#!/usr/bin/env python3
"""Measures forward and backward passes of a decoder on the CPU: dense, and with LRSA.

    python examples/cost.py [--layers 2] [--lengths 1024,2048,4096,8192,16384]

The decoder has the shape of SmolLM2-135M with fewer layers, random weights in float32 and no head.
Each row runs in a process of its own on one thread. Time is the CPU time of the faster of two
passes. Memory is the growth of the resident size during the passes. The output is a table in
Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from transformers import LlamaConfig, LlamaModel

from longreach_torch import enable_lrsa

LAGS = {"sdpa": 0, "LRSA, L = 128": 128, "LRSA, L = 1024": 1024}
"""The lag of each attention. S is 16 and r is 1/4."""


def resident() -> float:
    """Largest resident size of this process so far, in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def measure(layers: int, length: int, attention: str) -> tuple[float, float]:
    """Seconds of a forward and backward pass, and MiB that it takes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=256,
        max_position_embeddings=32768,
        attn_implementation="sdpa",
    )
    model = LlamaModel(config)
    if lag := LAGS[attention]:
        enable_lrsa(model, sink=16, lag=lag, keep=0.25)
    ids = torch.randint(0, 256, (1, length))

    def run(ids: torch.Tensor) -> float:
        model.zero_grad()
        start = time.process_time()
        model(ids, use_cache=False).last_hidden_state.square().mean().backward()
        return time.process_time() - start

    run(ids[:, :64])
    before = resident()
    seconds = min(run(ids), run(ids))
    return seconds, resident() - before


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--lengths", default="1024,2048,4096,8192,16384")
    parser.add_argument("--one", nargs=2, metavar=("LENGTH", "ATTENTION"), help="measure one row")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.layers, int(args.one[0]), args.one[1])))
        return
    print("| Tokens | Attention | Seconds | Against sdpa | MiB |\n| --- | --- | --- | --- | --- |")
    for length in args.lengths.split(","):
        dense = 0.0
        for attention in LAGS:
            command = [sys.executable, __file__, "--layers", str(args.layers)]
            out = subprocess.run(
                [*command, "--one", length, attention], stdout=subprocess.PIPE, check=True
            )
            seconds, size = json.loads(out.stdout)
            dense = dense or seconds
            cells = [f"{int(length):,}", attention, f"{seconds:.2f}", f"{seconds / dense:.2f}"]
            print("|", " | ".join([*cells, f"{size:,.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
