#!/usr/bin/env python3
"""Makes the Parquet files beside it with pyarrow: `python3 tests/tables/make.py`."""

import os

import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.dirname(os.path.abspath(__file__))

# Messages as the datasets library stores them: a struct has all fields, and absent ones are null.
CALL = {"id": "1", "function": {"name": "f", "arguments": {"x": 1, "y": None}}}
TALKS = [
    [{"role": "user", "content": "hello é"}, {"role": "assistant", "content": "hello"}],
    [
        {"role": "user", "content": "a", "weight": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
        {"role": "assistant", "content": "b", "weight": 0},
    ],
]
FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.struct([("x", pa.int64()), ("y", pa.string())]))])
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(pa.struct([("id", pa.string()), ("function", FUNCTION)]))),
        ("tool_call_id", pa.string()),
        ("weight", pa.int32()),
    ]
)
messages = pa.table({"messages": pa.array(TALKS, pa.list_(MESSAGE)), "score": [0.5, None]})
pq.write_table(messages, os.path.join(HERE, "messages.parquet"), compression="snappy")

texts = pa.table({"id": [1, 2, 3], "text": ["hello", "hello hello", None]})
pq.write_table(texts, os.path.join(HERE, "texts.parquet"), compression="zstd", row_group_size=2)

ids = pa.table({"input_ids": pa.array([[1, 2, 3], [4, 5]], pa.list_(pa.int32())), "labels": [[-100, 2, 3], None]})
pq.write_table(ids, os.path.join(HERE, "ids.parquet"), compression="gzip", use_dictionary=False)

# Token ids with masks and documents, as the datasets library stores them: whole numbers of several widths.
TOKENS = {
    "input_ids": ([[5, 6, 7, 0], [0, 0, 5, 6, 7], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 0], [1, 2, 3]], pa.int32()),
    "labels": ([None, [-100, -100, 5, 6, 7], None, None, None], pa.int64()),
    "attention_mask": ([[1, 1, 1, 0], [0, 0, 1, 1, 1], None, [1, 1, 1, 1, 1, 0, 0], None], pa.int8()),
    "completion_mask": ([[0, 1, 1, 1], None, None, [0, 0, 1, 0, 1, 0, 0], None], pa.int64()),
    "assistant_masks": ([None, [False, False, False, True, True], None, None, [True, False, True]], pa.bool_()),
    "position_ids": ([None, None, None, [0, 1, 2, 0, 1, 0, 0], [0, 1, 2]], pa.int64()),
    "seq_lengths": ([None, None, [3, 2], None, None], pa.uint16()),
}
columns = {name: pa.array(rows, pa.list_(kind)) for name, (rows, kind) in TOKENS.items()}
pq.write_table(pa.table(columns), os.path.join(HERE, "tokens.parquet"), compression="snappy")
