#!/usr/bin/env python3
"""Reads what `longreach export` writes with the programs it is written for.

    pip install llama-cpp-python torch transformers peft
    cargo build --release
    scripts/check-exports.py target/release/longreach MODEL... [--tokens 24]

MODEL is a folder or a GGUF file. For each one the script trains an adapter for a few steps, exports model and adapter
in every format, and continues two prompts greedily: transformers from the folder, PEFT from the unmerged folder and the
adapter that `train` wrote, llama.cpp from GGUF files of three types, and llama.cpp from the unmerged GGUF file with the
adapter as GGUF. The text must be that of `longreach generate`. Where it differs, the reader's logits of the two tokens
must lie within 0.05: the programs round differently, and llama.cpp rounds activations to 16 or 8 bits. The exit status
is 1 if a text differs by more.
"""
import argparse, json, pathlib, subprocess, sys, tempfile

import llama_cpp
import numpy as np
import peft
import torch
import transformers

LOGIT_BOUND = 0.05
PROMPTS = ["Once upon a time, there was a", "The name of the ship was"]
LINES = [{"prompt": "The name of the ship was", "completion": " Pequod, and she sailed at dawn."},
         {"prompt": "The keeper of the light is", "completion": " old Martha, who never sleeps."}]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longreach", type=pathlib.Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to generate")
    return parser.parse_args()


def run(args, verb, *flags):
    done = subprocess.run([args.longreach, verb, *map(str, flags), "--device", "cpu"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"longreach {verb} {' '.join(map(str, flags))} failed:\n{done.stderr}")
    return done.stdout


def generated(args, ids, model, *adapter):
    """The ids of the prompt's greedy continuation."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([ids], file)
        file.flush()
        out = run(args, "generate", "--model", model, *adapter, "--ids", file.name, "--temp", 0, "--attention", "dense",
                  "--repetition-penalty", 1, "--max-tokens", args.tokens, "--ignore-eos", "--json")
    return ids, json.loads(out)["ids"]


class Torch:
    def __init__(self, model):
        self.model = model.eval()

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0, -1].float().numpy()


class LlamaCpp:
    def __init__(self, path, lora=None):
        self.llama = llama_cpp.Llama(model_path=str(path), lora_path=lora and str(lora), n_ctx=512, verbose=False)

    def logits(self, ids):
        self.llama.reset()
        self.llama.eval(ids)
        return np.array(self.llama._ctx.get_logits_ith(-1)[: self.llama.n_vocab()])


def compare(name, reader, expected):
    """Whether the reader continues each prompt as expected, or differs by a near tie."""
    fine = True
    for prompt, ids in expected:
        said = "equal"
        for i, token in enumerate(ids):
            logits = reader.logits(prompt + ids[:i])
            best = int(np.argmax(logits))
            if best != token:
                gap = float(logits[best] - logits[token])
                said = f"token {i} of {len(ids)} is {best} and not {token}, logits differ by {gap:.4f}"
                fine &= gap <= LOGIT_BOUND
                if gap > LOGIT_BOUND:
                    break
        print(f"  {name}: {said}")
    return fine


def check(args, model, dir):
    (dir / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    adapter = dir / "adapter"
    run(args, "train", "--model", model, "--data", dir / "data.jsonl", "--out", adapter, "--steps", 8, "--lr", "2e-3",
        "--batch-size", 2, "--attention", "dense")
    with_adapter = ("--adapter", adapter)
    exports = [("merged-hf", "hf", "f32", with_adapter), ("base-hf", "hf", "f32", ()), ("merged-mlx", "mlx", "bf16", with_adapter),
               ("base.gguf", "gguf", "f32", ()), ("adapter.gguf", "adapter-gguf", "f32", with_adapter),
               ("f32.gguf", "gguf", "f32", with_adapter), ("q8_0.gguf", "gguf", "q8_0", with_adapter),
               ("q4_k_m.gguf", "gguf", "q4_k_m", with_adapter)]
    for out, to, kind, adapted in exports:
        done = json.loads(run(args, "export", "--model", model, *adapted, "--to", to, "--quantise", kind, "--out", dir / out, "--json"))
        print(f"  {out}: KL {done['kl']:.2e} of {done['kl_bound']:.0e}, {done['bytes'] / 2**20:.1f} MiB")
    tokenizer = transformers.AutoTokenizer.from_pretrained(dir / "merged-hf")
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    expected = [generated(args, ids, model, *with_adapter) for ids in prompts]
    load = transformers.AutoModelForCausalLM.from_pretrained
    fine = compare("transformers", Torch(load(dir / "merged-hf", dtype=torch.float32)), expected)
    base = load(dir / "base-hf", dtype=torch.float32)
    fine &= compare("PEFT", Torch(peft.PeftModel.from_pretrained(base, adapter)), expected)
    fine &= compare("llama.cpp f32", LlamaCpp(dir / "f32.gguf"), expected)
    fine &= compare("llama.cpp with the adapter", LlamaCpp(dir / "base.gguf", dir / "adapter.gguf"), expected)
    for kind in ["q8_0", "q4_k_m"]:
        own = [generated(args, ids, dir / f"{kind}.gguf") for ids in prompts]
        fine &= compare(f"llama.cpp {kind}", LlamaCpp(dir / f"{kind}.gguf"), own)
    llama = LlamaCpp(dir / "f32.gguf").llama
    for prompt, ids in zip(PROMPTS, prompts):
        other = llama.tokenize(prompt.encode(), add_bos=True, special=True)
        if list(other) != list(ids):
            print(f"  tokens differ: {ids} in transformers, {other} in llama.cpp")
            fine = False
    with open(dir / "merged-mlx/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    config = json.loads((dir / "merged-mlx/config.json").read_text())
    names = set(load(dir / "base-hf").state_dict()) - ({"lm_head.weight"} if config.get("tie_word_embeddings") else set())
    if header.pop("__metadata__")["format"] != "mlx" or set(header) != names:
        print(f"  MLX: other names: {set(header) ^ names}")
        fine = False
    return fine


def main():
    args = arguments()
    fine = True
    for model in args.models:
        print(model)
        with tempfile.TemporaryDirectory() as dir:
            fine &= check(args, model, pathlib.Path(dir))
    print("every reader says the same" if fine else "a reader differs")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
