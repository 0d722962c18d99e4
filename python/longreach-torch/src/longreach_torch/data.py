"""Training data in the lines that `longreach train` reads, with the same tokens and labels."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from itertools import accumulate, compress, pairwise
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor
from transformers.utils.chat_template_utils import render_jinja_template

from .answers import Answers, Message
from .distill import IGNORED

Example = dict[str, list[int]]
"""`input_ids` and `labels` of one sequence. Labels are not shifted; -100 does not count."""

SHAPES = (
    '{"prompt", "completion"}, {"messages"}, {"conversations"}, {"instruction", "output"}, '
    '{"text"} or {"input_ids", "labels"}'
)
SPEAKERS = {
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant", "chatgpt", "model", "bing", "bard"),
    "system": ("system",),
    "tool": ("tool", "observation", "function_response"),
}
ROLES = {speaker: role for role, speakers in SPEAKERS.items() for speaker in speakers}
BAD_LINE = (ValueError, TypeError, LookupError, AttributeError, jinja2.TemplateError)
"""What a line raises whose fields have the wrong types or that the chat template refuses."""
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Reader:
    """Turns lines into tokens and labels.

    Args:
        tokenizer (`PreTrainedTokenizerFast`, *optional*): The model's tokenizer, with its chat
            template. Without one, only lines of `input_ids` can be read.
        eos_token_id (`int`, *optional*): Ends completions and texts. By default the tokenizer's.
        max_length (`int`, *optional*): Longer examples lose their end.
    """

    def __init__(
        self, tokenizer: Any, eos_token_id: int | None = None, max_length: int | None = None
    ) -> None:
        """Finds the tokens that the tokenizer puts around a text."""
        self.tokenizer = tokenizer
        self.max_length = max_length
        if tokenizer is None:
            return
        self.eos = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        around = tokenizer("a", return_special_tokens_mask=True)
        ids, marks = around["input_ids"], around["special_tokens_mask"]
        before = marks.index(0)
        after = len(marks) - marks[::-1].index(0)
        self.before, self.after = ids[:before], ids[after:]
        line = self.after_line_break("a")
        self.prepends_space = line is not None and line != self.plain("a")

    def read(self, path: str | os.PathLike[str]) -> list[Example]:
        """Reads a `.jsonl` file, or `train.jsonl` in a folder.

        Leaves out examples without a label that counts.
        """
        file = Path(path) / "train.jsonl" if Path(path).is_dir() else Path(path)
        examples = []
        lines = file.read_text(encoding="utf-8-sig").split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = self.examples(json.loads(line))
            except BAD_LINE as error:
                raise ValueError(f"{file}, line {number}: {error}") from error
            for whole in found:
                example = {key: values[: self.max_length] for key, values in whole.items()}
                if any(label != IGNORED for label in example["labels"][1:]):
                    examples.append(example)
        if not examples:
            raise ValueError(f"{file} has no example with a label that counts.")
        return examples

    def examples(self, line: dict[str, Any]) -> list[Example]:
        """Tokens and labels of one line: one example, or the documents of packed token ids."""
        line = present(line)
        return documents(line) if "input_ids" in line else [self.example(line)]

    def example(self, line: dict[str, Any]) -> Example:
        """Tokens and labels of one line of text."""
        line = present(line)
        if self.tokenizer is None:
            raise ValueError('the model has no tokenizer: use lines of {"input_ids", "labels"}')
        if "messages" in line:
            return self.chat(line, line["messages"])
        if "conversations" in line:
            return self.chat(line, [turn(message) for message in line["conversations"]])
        if {"prompt", "completion"} <= line.keys():
            prompt, completion = line["prompt"], line["completion"]
            if isinstance(prompt, list):
                return self.chat(line, [{**m, "weight": 0} for m in prompt] + completion)
            nothing_beside(line, "system", "tools", "documents")
            return self.completed(prompt, completion)
        if {"instruction", "output"} <= line.keys():
            nothing_beside(line, "history", "tools", "documents")
            return self.instructed(line)
        if "text" in line:
            ids = self.surrounded(self.plain(line["text"]))
            ids = self.ended(ids)
            return {"input_ids": ids, "labels": list(ids)}
        raise ValueError(f"found the fields {sorted(line)}; expected {SHAPES}")

    def plain(self, text: str) -> list[int]:
        """Ids of a text without tokens around it."""
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is no text: give a string")
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def surrounded(self, ids: list[int], end: bool = True) -> list[int]:
        """Ids with the tokens around a text. A text that begins with BOS gets no second one."""
        before: list[int] = self.before
        after: list[int] = self.after if end else []
        if before and ids[:1] == before[-1:]:
            before = before[:-1]
        if after and ids[-1:] == after[:1]:
            after = after[1:]
        return before + ids + after

    def ended(self, ids: list[int]) -> list[int]:
        """Ids with EOS at the end."""
        return ids if self.eos is None or ids[-1:] == [self.eos] else [*ids, self.eos]

    def after_line_break(self, text: str) -> list[int] | None:
        """Ids of a text after a line break. `None` if a token spans both."""
        found = self.tokenizer("\n" + text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = found["input_ids"], found["offset_mapping"]
        first = next((i for i, (start, _) in enumerate(offsets) if start >= 1), len(ids))
        return ids[first:] if all(end <= 1 for _, end in offsets[:first]) else None

    def continuation(self, text: str) -> list[int]:
        """Ids of a text after another one: without the space that SentencePiece puts in front."""
        ids = self.after_line_break(text) if self.prepends_space else None
        return self.plain(text) if ids is None else ids

    def completed(self, prompt: str, completion: str) -> Example:
        """A prompt, which is encoded alone, with its completion and EOS."""
        before = self.surrounded(self.plain(prompt), end=False)
        after = self.continuation(completion) if prompt else self.plain(completion)
        ids = self.ended(before + after)
        return {"input_ids": ids, "labels": [IGNORED] * len(before) + ids[len(before) :]}

    def instructed(self, line: dict[str, Any]) -> Example:
        """An instruction with its input as a question, and the answer."""
        question = "\n".join(part for part in (line["instruction"], line.get("input")) if part)
        if self.tokenizer.chat_template is None:
            parts = [line["system"]] if line.get("system") else []
            return self.completed("".join(p + "\n" for p in [*parts, question]), line["output"])
        answer = {"role": "assistant", "content": line["output"]}
        return self.chat(line, [{"role": "user", "content": question}, answer])

    def chat(self, line: dict[str, Any], messages: list[Message]) -> Example:
        """A conversation. What the assistant says counts, unless its weight is 0."""
        if self.tokenizer.chat_template is None:
            raise ValueError("the line holds messages, and the tokenizer has no chat template")
        nothing_beside(line, "tools", "documents", "functions")
        messages, learnt = [present(m) for m in messages], []
        for message in messages:
            learnt.append(bool(message.pop("weight", 1)))
            if not isinstance(message.get("content"), str) or message.get("tool_calls"):
                raise ValueError("a message is no plain text: only `longreach train` reads these")
        system = line.get("system")
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
            learnt.insert(0, False)
        elif system and messages[0]["content"] != system:
            raise ValueError('the line has a "system" besides its own system message')
        text, spans = self.rendered(line, messages, learnt)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = found["input_ids"], found["offset_mapping"]
        counts = [any(a <= start and end <= b for a, b in spans) for start, end in offsets]
        labels = [i if on else IGNORED for i, on in zip(ids, counts, strict=True)]
        return {"input_ids": ids, "labels": labels}

    def rendered(
        self, line: dict[str, Any], messages: list[Message], learnt: list[bool]
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the ranges of characters that count."""
        variables = line.get("chat_template_kwargs", {})
        if isinstance(variables, str):
            variables = json.loads(variables)

        def render(asked: list[Message], prompt: bool, blocks: bool = False) -> Any:
            texts, marked = render_jinja_template(
                conversations=[asked],
                chat_template=self.tokenizer.get_chat_template(),
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=blocks,
                **{**self.tokenizer.special_tokens_map, **variables},
            )
            return (texts[0], marked[0]) if blocks else texts[0]

        def attempt(asked: list[Message], prompt: bool) -> str | None:
            try:
                shown: str = render(asked, prompt)
            except (jinja2.TemplateError, TypeError, IndexError):
                return None
            return shown

        has_blocks = GENERATION.search(self.tokenizer.get_chat_template()) is not None
        text, blocks = render(messages, False, blocks=True) if has_blocks else ("", [])
        text = text if has_blocks else render(messages, False)
        answers = Answers(messages, text, self.tokenizer.eos_token or "", attempt)
        said = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not blocks:
            return text, answers.spans([i for i in said if learnt[i]])
        others = answers.spans([i for i in said if not learnt[i]])
        kept = [(a, b) for a, b in blocks if not any(a < y and x < b for x, y in others)]
        return text, kept


def present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not null."""
    return {key: value for key, value in fields.items() if value is not None}


def nothing_beside(line: dict[str, Any], *keys: str) -> None:
    """Refuses fields that would be left out."""
    for key in keys:
        if line.get(key):
            raise ValueError(f'the line has "{key}": only `longreach train` may read it')


def documents(line: dict[str, Any]) -> list[Example]:
    """The documents of a line of token ids, without the tokens that `attention_mask` leaves out.

    The other masks say which labels count. Without labels, every token counts.
    """
    ids = integers(line, "input_ids")
    labels = one_each(line, "labels", ids) if "labels" in line else list(ids)
    for key in ("completion_mask", "assistant_masks"):
        counts = mask(line, key, ids)
        labels = [label if on else IGNORED for label, on in zip(labels, counts, strict=True)]
    kept = mask(line, "attention_mask", ids)
    bounds = [0, *beginnings(line, ids, kept), len(ids)]
    parts = [slice(begin, end) for begin, end in pairwise(bounds)]
    found = [
        {"input_ids": list(compress(ids[p], kept[p])), "labels": list(compress(labels[p], kept[p]))}
        for p in parts
    ]
    return [document for document in found if document["input_ids"]]


def beginnings(line: dict[str, Any], ids: list[int], kept: list[int]) -> list[int]:
    """The places after the first token where a document of a packed line begins, in order."""
    begins: set[int] = set()
    if "seq_lengths" in line:
        lengths = integers(line, "seq_lengths")
        if sum(lengths) != len(ids) or any(length < 0 for length in lengths):
            raise ValueError(
                f'"seq_lengths" add up to {sum(lengths)}, and "input_ids" has {len(ids)} entries: '
                'give the length of each document, or delete "seq_lengths"'
            )
        begins.update(accumulate(lengths))
    if "position_ids" in line:
        positions = one_each(line, "position_ids", ids)
        begins.update(i for i, position in enumerate(positions) if position == 0)
        for i, (before, after) in enumerate(pairwise(positions), 1):
            if i not in begins and kept[i - 1] and kept[i] and after != before + 1:
                raise ValueError(
                    f'"position_ids" goes from {before} to {after} at token {i}: count up from 0 '
                    'in each document, or delete "position_ids"'
                )
    return sorted(begins - {0, len(ids)})


def mask(line: dict[str, Any], key: str, ids: list[int]) -> list[int]:
    """A mask with a 0 or a 1, or a truth value, for each token. By default all are 1."""
    values = line.get(key, [1] * len(ids))
    if not isinstance(values, list) or not all(is_bit(value) for value in values):
        raise ValueError(f'"{key}" is no list of 0 and 1: give a 0 or a 1 for each token')
    return one_each({key: [int(value) for value in values]}, key, ids)


def is_bit(value: Any) -> bool:
    """Whether a value is 0, 1 or a truth value."""
    return type(value) in (bool, int) and value in (0, 1)


def one_each(line: dict[str, Any], key: str, ids: list[int]) -> list[int]:
    """A field that must have a whole number for each token."""
    values = integers(line, key)
    if len(values) != len(ids):
        raise ValueError(
            f'"input_ids" has {len(ids)} entries and "{key}" {len(values)}, so they do not belong '
            f'together: give one entry for each token, or delete "{key}"'
        )
    return values


def integers(line: dict[str, Any], key: str) -> list[int]:
    """A field that must be a list of whole numbers."""
    values = line[key]
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f'"{key}" is no list of whole numbers')
    return list(values)


def turn(message: dict[str, Any]) -> Message:
    """A message of ShareGPT, or of OpenAI, as one of OpenAI."""
    if "role" in message:
        return message
    if message["from"] not in ROLES:
        raise ValueError(f'"from" is {message["from"]!r}; expected human, gpt, system or tool')
    weight = {"weight": message["weight"]} if "weight" in message else {}
    return {"role": ROLES[message["from"]], "content": message["value"], **weight}


def collate(examples: Iterable[Example], pad_token_id: int = 0) -> dict[str, Tensor]:
    """Pads examples on the right to a batch. A first label never counts: nothing comes before it.

    Args:
        examples (`Iterable[dict]`): Examples of a [`Reader`].
        pad_token_id (`int`): Any token of the vocabulary. The mask hides it.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each a `torch.Tensor` of shape `[B, n]`.
    """
    rows = [(torch.tensor(e["input_ids"]), torch.tensor(e["labels"])) for e in examples]

    def padded(parts: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    return {
        "input_ids": padded([ids for ids, _ in rows], pad_token_id),
        "attention_mask": padded([torch.ones_like(ids) for ids, _ in rows], 0),
        "labels": padded([labels for _, labels in rows], IGNORED).index_fill(
            1, torch.tensor(0), IGNORED
        ),
    }
