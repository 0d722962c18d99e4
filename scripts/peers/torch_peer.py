#!/usr/bin/env python3
"""Times PyTorch on a GGUF file that transformers can read, in f32 on the CPU, and prints one line of JSON:

    torch_peer.py FILE.gguf IDS.json NEW_TOKENS THREADS

It loads the model, reads a prompt of ids and continues it greedily with the cache of transformers. Needs torch,
transformers and gguf; their import is not part of the times.
"""
import json
import pathlib
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def free_bytes():
    """Memory that the system has left, where it says so."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def lap(since):
    now = time.perf_counter(), time.process_time()
    return now, (now[0] - since[0], now[1] - since[1])


@torch.inference_mode()
def main():
    path, ids, new, threads = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # 4 bits become 32, and transformers holds them twice while it loads.
    needed, free = 16 * path.stat().st_size, free_bytes()
    if free is not None and needed > free:
        sys.exit(f"the model may take {needed >> 20} MiB in f32, and {free >> 20} MiB are free")
    torch.set_num_threads(threads)
    with open(ids, encoding="utf-8") as file:
        prompt = torch.tensor(json.load(file))
    at, _ = lap((0, 0))
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    model(prompt[:, :1], logits_to_keep=1).logits.argmax()
    at, (first_token, _) = lap(at)
    got = model(prompt, use_cache=True, logits_to_keep=1)
    out = [got.logits[0, -1].argmax().item()]
    at, prefill = lap(at)
    while len(out) < new:
        got = model(torch.tensor([out[-1:]]), past_key_values=got.past_key_values, use_cache=True)
        out.append(got.logits[0, -1].argmax().item())
    at, decode = lap(at)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"first_token_s": first_token, "prefill": prefill, "decode": decode, "ids": out, "peak_mib": peak}
    print(json.dumps(row))


main()
