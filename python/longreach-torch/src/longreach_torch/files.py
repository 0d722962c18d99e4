"""The files that Longreach and this package exchange: a PEFT adapter beside `longreach.json`."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM

from .enable import LrsaHandle, enable_lrsa

RECORD = "longreach.json"
"""Name of the file that records the attention of a training."""


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `longreach.json`: the attention, its settings and the base model.

    Args:
        folder (`str` or `os.PathLike`): The folder of an adapter or a model.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a folder that Longreach wrote.")
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or record.get("attention") not in ("dense", "lrsa"):
        raise ValueError(f'{path} records no attention: "attention" is neither dense nor lrsa.')
    return record


def from_longreach(
    folder: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    is_trainable: bool = False,
    **kwargs: Any,
) -> tuple[Any, LrsaHandle]:
    """Loads what Longreach trained, with the attention that it was trained with.

    A record of dense attention gives LRSA with `keep=1`, which is the same, and is saved as dense
    attention while that ratio stays.

    Args:
        folder (`str` or `os.PathLike`): An adapter with its `longreach.json`, or a whole model.
        base (`str` or `os.PathLike`, *optional*): The adapter's base model. By default the one
            that its files name.
        is_trainable (`bool`): Whether training goes on with the adapter.
        kwargs (`Any`): Arguments of `AutoModelForCausalLM.from_pretrained`, such as `dtype`.

    Returns:
        The model, a `PeftModel` if the folder holds an adapter, and its [`LrsaHandle`].
    """
    record = read_record(folder)
    is_dense = record["attention"] == "dense"
    settings: dict[str, Any] = {
        name: record[name] for name in ("sink", "lag", "keep") if name in record
    }
    if is_dense:
        settings = {"keep": 1.0}
    config = Path(folder) / "adapter_config.json"
    if not config.is_file():
        model = AutoModelForCausalLM.from_pretrained(folder, **kwargs)
        return model, enabled(model, settings, is_dense)
    if base is None:
        named = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
        base = record.get("base", {}).get("model") or named
    if base is None or str(base).endswith(".gguf"):
        raise ValueError(
            f"The adapter in {folder} was trained on {base}, which transformers cannot load: give "
            "base=, the folder or the id of the model in Hugging Face's format."
        )
    model = AutoModelForCausalLM.from_pretrained(base, **kwargs)
    model = PeftModel.from_pretrained(model, os.fspath(folder), is_trainable=is_trainable)
    return model, enabled(model, settings, is_dense)


def enabled(model: Any, settings: dict[str, Any], is_dense: bool) -> LrsaHandle:
    """LRSA in the model, with the mark of a record of dense attention."""
    handle = enable_lrsa(model, **settings)
    handle.was_dense = is_dense
    return handle


def save_longreach(
    model: Any,
    folder: str | os.PathLike[str],
    handle: LrsaHandle,
    state_dict: Mapping[str, Any] | None = None,
) -> None:
    """Saves an adapter or a whole model so that Longreach goes on with it.

    Args:
        model (`PeftModel` or `PreTrainedModel`): The trained model.
        folder (`str` or `os.PathLike`): The folder to write.
        handle (`LrsaHandle`): LRSA in the model.
        state_dict (`dict[str, torch.Tensor]`, *optional*): Gathered weights, if FSDP shards those
            of the model.
    """
    given = {} if state_dict is None else {"state_dict": state_dict}
    model.save_pretrained(folder, **given)
    write_record(model, folder, handle)


def write_record(model: Any, folder: str | os.PathLike[str], handle: LrsaHandle) -> None:
    """Writes `longreach.json` beside weights that were saved by other means.

    Args:
        model (`PeftModel` or `PreTrainedModel`): The trained model.
        folder (`str` or `os.PathLike`): The folder of its weights.
        handle (`LrsaHandle`): LRSA in the model.
    """
    settings = handle.settings
    record: dict[str, Any] = {
        "attention": "lrsa",
        "sink": settings.sink,
        "lag": settings.lag,
        "keep": settings.keep,
    }
    if handle.was_dense and settings.keep == 1.0:
        record = {"attention": "dense"}
    if isinstance(model, PeftModel):
        name = model.get_base_model().name_or_path
        if (digest := fingerprint(name)) is not None:
            record["base"] = {"model": name, "fingerprint": digest}
    path = Path(folder) / RECORD
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def fingerprint(folder: str | os.PathLike[str]) -> str | None:
    """Longreach's fingerprint of a model's weights, or `None` if they are not in this folder.

    It is the SHA-256 over the name, the size in bytes, and the first and last 4 KiB of each tensor
    in the order of the names.
    """
    index = Path(folder) / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    places: dict[str, tuple[Path, int, int]] = {}
    for file in (Path(folder) / name for name in files):
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            start, end = tensor["data_offsets"]
            places[name] = (file, 8 + length + start, end - start)
    digest = hashlib.sha256()
    for name, (file, start, size) in sorted(places.items()):
        part = min(size, 4096)
        with file.open("rb") as stream:
            stream.seek(start)
            digest.update(f"{name} {size}\n".encode() + stream.read(part))
            stream.seek(start + size - part)
            digest.update(stream.read(part))
    return f"sha256 {digest.hexdigest()}"
