#!/usr/bin/env python3
"""Writes folders.json: model folders, and what transformers 4.57 makes of a text in each.

    python3 tests/tokenizers/make_folders.py

Every folder has the same small tokenizer.json (the ids of a text are its bytes; 256 and up are
special tokens) with the changes that a case names, and the other files of the case.
"""
import json
import pathlib
import tempfile

import transformers

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<|endoftext|>", "<BOS_TOKEN>",
           "<|END_OF_TURN_TOKEN|>", "<UNK>"]
BOS, EOS = 256, 257


def byte_chars():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in keep else chr(next(spare)) for b in range(256)]


def token(name, **flags):
    return {"content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} | flags


def level(**more):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True} | more


def template(front=(), end=()):
    one = [{"SpecialToken": {"id": t, "type_id": 0}} for t in front] + [{"Sequence": {"id": "A", "type_id": 0}}]
    one += [{"SpecialToken": {"id": t, "type_id": 0}} for t in end]
    names = {t: {"id": t, "ids": [256 + SPECIAL.index(t)], "tokens": [t]} for t in [*front, *end]}
    return {"type": "TemplateProcessing", "single": one, "pair": one + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": names}


BASE = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 256 + i} | token(t) for i, t in enumerate(SPECIAL)],
    "normalizer": None, "pre_tokenizer": level(), "post_processor": level(trim_offsets=False), "decoder": level(),
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": False, "byte_fallback": False, "vocab": {c: b for b, c in enumerate(byte_chars())}, "merges": []},
}
WITH_BOS = {"post_processor": template(["<s>"])}
WITH_BOTH = {"post_processor": template(["<s>"], ["</s>"])}
# Tokens that the vocabulary has but the list of added tokens lacks.
UNLISTED = {"added_tokens": BASE["added_tokens"][:2],
            "model": BASE["model"] | {"vocab": BASE["model"]["vocab"] | {t: 256 + i for i, t in enumerate(SPECIAL)}}}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
NAMED = FAST | {"bos_token": "<s>", "eos_token": "</s>"}


def llama(**more):
    return {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"} | more


TEXT = "a <|im_start|>b<|im_end|>  c"
# Name, changes of tokenizer.json, tokenizer_config.json, further files, text.
CASES = [
    ("Llama's class takes BOS away", WITH_BOS, llama(add_bos_token=False), {}, TEXT),
    ("Llama's class adds BOS", {}, llama(), {}, TEXT),
    ("Llama's class adds EOS too", {}, llama(add_eos_token=True), {}, TEXT),
    ("Llama's class takes EOS away", WITH_BOTH, llama(), {}, TEXT),
    ("Llama's class with another BOS", {}, llama(bos_token="<|im_start|>"), {}, "a"),
    ("Llama's class without names", {}, {"tokenizer_class": "LlamaTokenizer"}, {}, TEXT),
    ("Llama's class without a BOS that it does not add", {}, llama(bos_token=None, add_bos_token=False), {}, TEXT),
    ("Code Llama's class adds BOS", {}, llama(tokenizer_class="CodeLlamaTokenizerFast", prefix_token=None, middle_token=None, suffix_token=None, eot_token=None), {}, "a"),
    ("Gemma's class", {}, {"tokenizer_class": "GemmaTokenizer"}, {}, TEXT),
    ("Gemma's class without BOS", {}, {"tokenizer_class": "GemmaTokenizerFast", "add_bos_token": False}, {}, TEXT),
    ("Cohere's class", {}, {"tokenizer_class": "CohereTokenizerFast"}, {}, TEXT),
    ("the class of GPT-NeoX takes BOS away", WITH_BOS, {"tokenizer_class": "GPTNeoXTokenizerFast"}, {}, TEXT),
    ("the class of GPT-NeoX adds BOS", {}, {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True}, {}, TEXT),
    ("the class of GPT-2 keeps the post-processor", WITH_BOS, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": False}, {}, TEXT),
    ("the class of GPT-2 adds no BOS", {}, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, {}, TEXT),
    ("Qwen's class adds no BOS", {}, {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": True, "bos_token": "<s>"}, {}, TEXT),
    ("Qwen's class without names", {}, {"tokenizer_class": "Qwen2TokenizerFast"}, {}, TEXT),
    ("the plain class keeps the post-processor", WITH_BOTH, NAMED | {"add_bos_token": False}, {}, TEXT),
    ("the plain class adds no BOS", {}, NAMED | {"add_bos_token": True}, {}, TEXT),
    ("no class, but a model type with Llama's", {}, {}, {"config.json": {"model_type": "llama"}}, TEXT),
    ("no class, but a model type with Gemma's", {}, {}, {"config.json": {"model_type": "gemma3_text"}}, TEXT),
    ("no class, but a model type with Qwen's", WITH_BOS, {}, {"config.json": {"model_type": "qwen3"}}, TEXT),
    ("no class, but a model type with GPT-NeoX's", WITH_BOS, {}, {"config.json": {"model_type": "olmo2"}}, TEXT),
    ("no class, but a model type with Phi-3's", {}, {"add_bos_token": False}, {"config.json": {"model_type": "phi3"}}, TEXT),
    ("the class in config.json", WITH_BOS, {}, {"config.json": {"model_type": "llama", "tokenizer_class": "Qwen2Tokenizer"}}, TEXT),
    ("the class in tokenizer_config.json before the one in config.json", {}, llama(), {"config.json": {"model_type": "qwen2", "tokenizer_class": "Qwen2Tokenizer"}}, TEXT),
    ("names in special_tokens_map.json", WITH_BOS, FAST, {"special_tokens_map.json": {"bos_token": "<s>", "eos_token": token("</s>"), "pad_token": "<pad>"}}, TEXT),
    ("special_tokens_map.json wins over the configuration", {}, llama(), {"special_tokens_map.json": {"bos_token": "<bos>"}}, TEXT),
    ("special_tokens_map.json does not count beside added_tokens_decoder", {}, llama(added_tokens_decoder={"256": token("<s>")}), {"special_tokens_map.json": {"bos_token": "<bos>"}}, TEXT),
    ("all roles", {}, NAMED | {"unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "<eos>", "cls_token": "<bos>", "mask_token": "<UNK>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, {}, TEXT),
    ("additional tokens of both files", {}, NAMED | {"additional_special_tokens": ["<|im_start|>"]}, {"special_tokens_map.json": {"additional_special_tokens": ["<|im_end|>", token("<|im_start|>")]}}, TEXT),
    ("further roles", {}, NAMED | {"extra_special_tokens": {"image_token": "<UNK>"}}, {}, TEXT),
    ("an added token that tokenizer.json cuts in pieces", UNLISTED, NAMED | {"added_tokens_decoder": {"260": token("<|im_start|>"), "261": token("<|im_end|>")}}, {}, TEXT),
    ("special tokens that tokenizer.json cuts in pieces", UNLISTED, NAMED | {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}, {}, TEXT),
    ("tokens of added_tokens.json", UNLISTED, NAMED, {"added_tokens.json": {"<|im_end|>": 261, "<|im_start|>": 260}}, TEXT),
    ("new tokens in the order of their ids", {}, NAMED | {"added_tokens_decoder": {"269": token("<two>"), "268": token("<one>", special=False)}}, {}, "<two>x<one>"),
    ("new tokens get the next ids, whatever the file says", {}, NAMED | {"added_tokens_decoder": {"300": token("<two>"), "290": token("<one>")}}, {}, "<two>x<one>"),
    ("new tokens of roles", {}, NAMED | {"pad_token": "<new pad>", "additional_special_tokens": ["<new>"]}, {}, "<new>x<new pad>"),
    ("a new token of added_tokens.json with a role", {}, NAMED, {"added_tokens.json": {"<new>": 268}, "special_tokens_map.json": {"pad_token": "<new>"}}, "x<new>y"),
    ("added_tokens_decoder takes spaces", {}, NAMED | {"added_tokens_decoder": {"261": token("<|im_end|>", rstrip=True)}}, {}, TEXT),
    ("added_tokens_decoder makes a token special", {"added_tokens": [{"id": 256 + i} | token(t, special=t != "<|im_end|>") for i, t in enumerate(SPECIAL)]}, NAMED | {"added_tokens_decoder": {"261": token("<|im_end|>")}}, {}, TEXT),
    ("a role makes a token special that tokenizer.json lists", {"added_tokens": [{"id": 256 + i} | token(t, special=t != "<|im_end|>") for i, t in enumerate(SPECIAL)]}, NAMED | {"pad_token": "<|im_end|>"}, {}, TEXT),
    ("a role does not, beside added_tokens_decoder", {"added_tokens": [{"id": 256 + i} | token(t, special=t != "<|im_end|>") for i, t in enumerate(SPECIAL)]}, NAMED | {"pad_token": "<|im_end|>", "added_tokens_decoder": {"256": token("<s>")}}, {}, TEXT),
    ("a token as an object with a type", {}, llama(bos_token={"__type": "AddedToken"} | {k: v for k, v in token("<bos>").items() if k != "special"}), {}, TEXT),
    ("a space in front of a text", {}, NAMED | {"add_prefix_space": True}, {}, "a"),
    ("no space in front of a text", {"pre_tokenizer": level(add_prefix_space=True)}, NAMED, {}, "a"),
    ("Llama's class leaves the space in front of a text", {"pre_tokenizer": level(add_prefix_space=True)}, llama(), {}, "a"),
    ("special tokens of a text are cut", {}, NAMED | {"split_special_tokens": True}, {}, "a<|im_start|>b"),
    ("a single word", {}, NAMED | {"added_tokens_decoder": {"268": token("word", single_word=True, special=False)}}, {}, "a word, words"),
]


def main():
    assert transformers.__version__.startswith("4.57"), transformers.__version__
    out = []
    for name, changes, config, files, text in CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for file, content in {"tokenizer.json": BASE | changes, "tokenizer_config.json": config, **files}.items():
                folder.joinpath(file).write_text(json.dumps(content))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            ids = tokenizer.encode(text)
            out.append({
                "name": name, "tokenizer": changes, "files": {"tokenizer_config.json": config} | files, "text": text,
                "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                "special": tokenizer.special_tokens_map,
            })
            print(name, ids, out[-1]["special"])
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in out)
    base = json.dumps(BASE, separators=(",", ":"))
    HERE.joinpath("folders.json").write_text('{"tokenizer":' + base + ',"cases":[\n' + rows + "\n]}\n")


main()
