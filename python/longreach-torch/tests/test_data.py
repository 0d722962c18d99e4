"""Tokens and labels of a line equal those of the engine, under six chat templates."""

import json
import random
import shutil

import pytest
import torch
from conftest import REPOSITORY, cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from longreach_torch import Reader, collate, enable_lrsa

BLOCKS = """{% for m in messages %}<|{{ m.role }}|>
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}
{% else %}{{ m.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
HEADERS = """{{ bos_token }}{% for m in messages -%}
<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>
{%- endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
INSTRUCTIONS = """{{ bos_token }}{% set system = '' %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content + '\\n\\n' %}
{%- set messages = messages[1:] %}{% endif -%}
{%- for m in messages -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{% endif -%}
{%- if m.role == 'user' %}[INST] {{ (system if loop.last else '') + m.content }} [/INST]
{%- else %} {{ m.content | trim }}{{ eos_token }}{% endif -%}
{%- endfor -%}"""
TURNS = """{{ bos_token }}{% for m in messages -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
THOUGHTS = """{% set ns = namespace(last=-1) %}{% for m in messages %}
{%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.role != 'assistant' %}{{ m.content }}
{%- elif loop.index0 < ns.last %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}
{%- elif '</think>' in m.content %}{{ m.content }}
{%- else %}{{ '<think>\\n\\n</think>\\n\\n' + m.content }}{% endif %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {
    "blocks": BLOCKS,
    "chatml": CHATML,
    "headers": HEADERS,
    "instructions": INSTRUCTIONS,
    "turns": TURNS,
    "thoughts": THOUGHTS,
}
WORDS = [
    "One",
    "day",
    "a",
    "big",
    "whale",
    "said",
    "hello",
    "to",
    "Ann",
    "über",
    "Zoë’s",
    "3",
    "cats",
    "東京",
    "naïve",
    "\n",
    "tab\tend.",
    "...",
    "🐋",
    "x",
]


def said(random_numbers, thinks=False):
    words = random_numbers.choices(WORDS, k=random_numbers.randint(1, 6))
    text = " ".join(words).strip() or "Yes"
    text = random_numbers.choice(["", "", " ", "\n"]) + text + random_numbers.choice(["", "", " "])
    return f"<think>\n{' '.join(words[:3])}\n</think>\n\n{text}" if thinks else text


def line_of(number, random_numbers):
    """One line of a shape that goes round with its number."""
    r = random_numbers
    turns = []
    for _ in range(r.randint(1, 3)):
        answer = {"role": "assistant", "content": said(r, thinks=r.random() < 0.3)}
        turns += [{"role": "user", "content": said(r)}, answer]
    if r.random() < 0.3:
        turns[1]["weight"] = 0 if len(turns) > 2 else 1
    system = {"system": said(r)} if r.random() < 0.3 else {}
    shapes = [
        {"messages": turns, **system},
        {"prompt": said(r), "completion": said(r)},
        {"prompt": turns[:-1], "completion": turns[-1:]},
        {"conversations": [{"from": {"user": "human"}.get(m["role"], "gpt"), "value": m["content"]}
                           for m in turns]},
        {"instruction": said(r), "input": r.choice(["", said(r)]), "output": said(r), **system},
        {"text": said(r), "other": 1},
        {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8]},
        {"input_ids": [9, 10, 11], "completion_mask": [0, 0, 1]},
        {"input_ids": [0, 9, 8, 7, 0], "labels": [0, 9, 8, 7, 0],
         "attention_mask": [0, 1, 1, 1, 0], "assistant_masks": [True, True, False, True, True]},
        {"messages": [{"role": "system", "content": said(r)}, *turns], "labels": None},
    ]  # fmt: skip
    return shapes[number % len(shapes)]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    numbers = random.Random(1)
    rows = [line_of(i, numbers) for i in range(200)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


def model_folder(folder, template):
    """The bundled model with a chat template."""
    shutil.copytree(REPOSITORY / "assets" / "stories260k", folder, dirs_exist_ok=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.parametrize("name", TEMPLATES)
def test_lines_become_the_tokens_and_labels_of_the_engine(name, lines, engine, tmp_path):
    folder = model_folder(tmp_path / "model", TEMPLATES[name])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    examples = Reader(tokenizer).read(lines)
    assert len(examples) == 200
    (part,) = engine("data", "--model", folder, "--data", lines, "--examples", 200)["parts"]
    assert part["examples"] == 200
    for number, (example, shown) in enumerate(zip(examples, part["shown"], strict=True)):
        assert shown["more_tokens"] == 0
        assert example["input_ids"] == shown["input_ids"], number
        assert example["labels"][1:] == shown["labels"][1:], number  # nothing predicts the first
    out = tmp_path / "out"
    common = ("--sink", 4, "--lag", 16, "--keep", 0.25, "--attention", "lrsa", "--device", "cpu")
    engine(
        *("train", "--model", folder, "--data", lines, "--out", out, "--steps", 1),
        *("--batch-size", 200, "--lr", 1e-6, "--max-positions", 1024, *common),
    )
    wanted = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    batch = collate(examples)
    with enable_lrsa(model, 4, 16, 0.25), torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert abs(cross_entropy(logits, batch["labels"]).item() - wanted) < 2e-5


def test_refused_lines_are_named(tmp_path):
    refusal = (
        "{% if messages[1].role == 'user' %}{{ raise_exception('no second user') }}{% endif %}"
    )
    folder = model_folder(tmp_path / "model", refusal + CHATML)
    reader = Reader(PreTrainedTokenizerFast.from_pretrained(folder), max_length=8)
    file = tmp_path / "data.jsonl"
    user = {"role": "user", "content": "a"}
    for line, message in [
        ({"chosen": "a", "rejected": "b"}, "line 2: found the fields"),
        ({"messages": [user, {"role": "assistant", "content": None}]}, "only `longreach train`"),
        ({"messages": [user], "tools": [{"name": "f"}]}, 'has "tools"'),
        ({"prompt": "a", "completion": "b", "system": "c"}, 'has "system"'),
        ({"input_ids": [1, 2], "labels": [1]}, '2 entries and "labels" 1'),
        ({"input_ids": [1, 2], "attention_mask": [1]}, '2 entries and "attention_mask" 1'),
        ({"input_ids": [1, 2], "completion_mask": [1, 2]}, '"completion_mask" is no list of 0'),
        ({"input_ids": [1, 2.5], "labels": [1, 2]}, '"input_ids" is no list'),
        ({"input_ids": [1, 2], "labels": [1, [2]]}, '"labels" is no list'),
        ({"text": ["a", "b"]}, "is no text"),
        ({"prompt": 3, "completion": "b"}, "is no text"),
        ({"prompt": "a", "completion": ["b"]}, "line 2"),
        ({"messages": []}, "line 2"),
        ({"messages": ["a"]}, "line 2"),
        (["a"], "line 2"),
        ({"messages": [user, user, {"role": "assistant", "content": "a"}]}, "no second user"),
        ({"conversations": [{"from": "nobody", "value": "a"}]}, "nobody"),
    ]:
        file.write_text('{"text": "a b"}\n' + json.dumps(line))
        with pytest.raises(ValueError, match="line 2") as caught:
            reader.read(file)
        assert message in str(caught.value)
    file.write_text('{"text": "One day a big whale said hello to the other whales"}')
    assert len(reader.read(file)[0]["input_ids"]) == 8
    file.write_text(json.dumps({"input_ids": [3, 4], "labels": [3, -100]}))
    with pytest.raises(ValueError, match="no example"):
        reader.read(file)


def test_padding_is_left_out_and_masks_say_what_is_learnt(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [
        {"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0], "completion_mask": [0, 1, 1]},
        {"input_ids": [0, 0], "attention_mask": [0, 0]},
        {
            "input_ids": [0, 5, 6, 7],
            "labels": [-100, 5, 6, 7],
            "attention_mask": [False, True, True, True],
            "assistant_masks": [1, 1, 0, 1],
        },
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert Reader(None).read(file) == [
        {"input_ids": [5, 6], "labels": [-100, 6]},
        {"input_ids": [5, 6, 7], "labels": [5, -100, 7]},
    ]


def test_packed_documents_are_examples_of_their_own(tmp_path):
    file = tmp_path / "data.jsonl"
    for fields, expected in [
        ({"seq_lengths": [3, 2]}, [[1, 2, 3], [4, 5]]),
        ({"seq_lengths": [0, 2, 0, 3, 0]}, [[1, 2], [3, 4, 5]]),
        ({"seq_lengths": [2, 3], "position_ids": [0, 1, 2, 3, 4]}, [[1, 2], [3, 4, 5]]),
        ({"position_ids": [0, 1, 2, 3, 4]}, [[1, 2, 3, 4, 5]]),
        ({"position_ids": [6, 7, 8, 0, 1]}, [[1, 2, 3], [4, 5]]),
        ({"position_ids": [1, 1, 0, 1, 2], "attention_mask": [0, 0, 1, 1, 1]}, [[3, 4, 5]]),
        ({"position_ids": [0, 1, 2, 0, 0], "attention_mask": [1, 1, 1, 0, 0]}, [[1, 2, 3]]),
    ]:
        file.write_text(json.dumps({"input_ids": [1, 2, 3, 4, 5], **fields}))
        assert Reader(None).read(file) == [{"input_ids": i, "labels": i} for i in expected], fields
    line = {"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, 2, 3, -100, 5, 6]}
    file.write_text(json.dumps({**line, "position_ids": [0, 1, 0, 1, 2, 0]}))
    assert Reader(None, max_length=2).read(file) == [{"input_ids": [1, 2], "labels": [-100, 2]}]
    for fields, message in [
        ({"seq_lengths": [1, 2]}, '"seq_lengths" add up to 3, and "input_ids" has 2 entries'),
        ({"seq_lengths": [-1, 3]}, '"seq_lengths" add up to 2'),
        ({"position_ids": [0]}, '2 entries and "position_ids" 1'),
        ({"position_ids": [0, 2]}, '"position_ids" goes from 0 to 2 at token 1'),
    ]:
        file.write_text(json.dumps({"input_ids": [1, 2], **fields}))
        with pytest.raises(ValueError, match="line 1") as caught:
            Reader(None).read(file)
        assert message in str(caught.value)


def test_a_batch_is_padded_on_the_right():
    rows = [
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
        {"input_ids": [4, 5], "labels": [4, 5]},
    ]
    batch = collate(rows, pad_token_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, 5, -100]]
