#!/usr/bin/env python3
"""Compares a longreach binary with llama.cpp on a real model: perplexity of a page, and greedy tokens.

    pip install llama-cpp-python numpy
    scripts/fetch-models models
    cargo build --release
    scripts/compare-with-llama-cpp.py target/release/longreach models/gemma3-270m.gguf [--device cpu] [--characters 3000] [--tokens 32]

The page is the beginning of assets/moby-dick.txt. Each program tokenizes it, and the perplexities may
differ by 0.5 %. Then both continue the page's first paragraph greedily. At the first different token, llama.cpp's
logits of the two tokens must lie within 1e-2: the programs round differently, and llama.cpp also rounds activations
to eight bits where the weights are quantised. The exit status is 1 if anything differs by more.
"""
import argparse, json, pathlib, subprocess, sys, tempfile

import llama_cpp
import numpy as np

PERPLEXITY_BOUND, LOGIT_BOUND = 0.005, 1e-2
ASSETS = pathlib.Path(__file__).resolve().parent.parent / "assets"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longreach", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--characters", type=int, default=3000, help="length of the page")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate")
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def run(args, *flags):
    done = subprocess.run([args.longreach, *map(str, flags), "--model", args.model, "--device", args.device],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"longreach {flags[0]} failed: {done.stderr}")
    return done.stdout


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def perplexity(llama, ids):
    llama.reset()
    llama.eval(ids)
    scores = log_probabilities(llama.scores[: len(ids) - 1])
    return float(np.exp(-np.mean(scores[np.arange(len(ids) - 1), ids[1:]])))


def greedy(llama, ids, n):
    """The next n tokens, each with the logits that chose it."""
    llama.reset()
    llama.eval(ids)
    out = []
    for _ in range(n):
        logits = llama.scores[llama.n_tokens - 1].copy()
        out.append((int(logits.argmax()), logits))
        llama.eval([out[-1][0]])
    return out


def main():
    args = arguments()
    page = (ASSETS / "moby-dick.txt").read_text(encoding="utf-8")[: args.characters].rstrip()
    f32 = 0  # of the cache of keys and values, which is f16 otherwise
    llama = llama_cpp.Llama(
        str(args.model), n_ctx=4096, n_batch=512, logits_all=True, verbose=False, n_threads=args.threads, type_k=f32, type_v=f32
    )
    ids = llama.tokenize(page.encode(), add_bos=True, special=False)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        text, prompt = pathlib.Path(folder, "page.txt"), pathlib.Path(folder, "prompt.json")
        text.write_text(page, encoding="utf-8")
        said = json.loads(run(args, "probe", "--text", text, "--json"))
        if said["tokens"] != len(ids):
            sys.exit(f"the page has {said['tokens']} tokens in longreach and {len(ids)} in llama.cpp")
        ours, theirs = said["perplexity"], perplexity(llama, ids)
        apart = abs(ours / theirs - 1)
        failed |= apart > PERPLEXITY_BOUND
        print(f"perplexity of {len(ids)} tokens: longreach {ours:.4f}, llama.cpp {theirs:.4f}, {100 * apart:.3f} % apart")

        start = llama.tokenize(page.split("\n")[0][:400].encode(), add_bos=True, special=False)
        prompt.write_text(json.dumps([start]))
        flags = ("--temp", 0, "--max-tokens", args.tokens, "--ignore-eos", "--json")
        ours = json.loads(run(args, "generate", "--ids", prompt, *flags))["ids"]
        theirs = greedy(llama, start, args.tokens)
        first = next((i for i, (token, _) in enumerate(theirs) if token != ours[i]), None)
        if first is None:
            print(f"greedy: {args.tokens} equal tokens")
        else:
            token, logits = theirs[first]
            gap = float(logits[token] - logits[ours[first]])
            failed |= gap > LOGIT_BOUND
            print(f"greedy: equal up to token {first}; there llama.cpp's logits of {token} and {ours[first]} are {gap:.5f} apart")
    sys.exit(failed)


main()
