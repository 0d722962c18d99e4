"""Writes blocks.safetensors: random and extreme blocks of ggml's formats with the values of PyPI `gguf`'s dequantiser.

    pip install gguf==0.19.0 numpy safetensors
    python make_blocks.py

For each format, `<name>.blocks` u8 [blocks, bytes of a block] and `<name>.values` f32 [blocks, elements of a block].
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Bytes at which a block's f16 scales begin. MXFP4 has a power of two in its first byte instead.
SCALES = {
    "F16": [0],
    "BF16": [],
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "MXFP4": [],
}
# f16 scales at the ends of their range, as bits: zeros, the smallest and largest subnormal and normal numbers, both signs.
EXTREME = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00]
# Powers of two of MXFP4: subnormal ones, those around 1, and the largest with which no value overflows.
POWERS = [0, 1, 2, 3, 4, 63, 64, 127, 128, 129, 251, 252]
N_RANDOM = {1: 256, 32: 40, 256: 12}


def blocks_of(name, rng):
    elements, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (N_RANDOM[elements], n_bytes), dtype=np.uint8)
    for at in SCALES[name]:  # finite scales of every size
        half = rng.integers(0, 0x7C00, len(blocks), dtype=np.uint16) | rng.integers(0, 2, len(blocks), dtype=np.uint16) << 15
        blocks[:, at : at + 2] = half.astype("<u2")[:, None].view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(0, max(POWERS) + 1, len(blocks), dtype=np.uint8)
    extreme = []
    for i, scale in enumerate(EXTREME):
        fill = [0x00, 0xFF, 0x55, 0xAA][i % 4]
        block = np.full(n_bytes, fill, dtype=np.uint8)
        if i % 3 == 2:
            block = rng.integers(0, 256, n_bytes, dtype=np.uint8)
        for j, at in enumerate(SCALES[name]):
            bits = EXTREME[(i + 5 * j) % len(EXTREME)] if j else scale
            block[at : at + 2] = np.array([bits], dtype="<u2").view(np.uint8)
        if name == "MXFP4":
            block[0] = POWERS[i]
        extreme.append(block)
    if name == "BF16":
        extreme = [np.array([b], dtype="<u2").view(np.uint8) for b in EXTREME + [0x7F7F, 0xFF80, 0x7F80, 0x0080]]
    return np.concatenate([blocks, np.stack(extreme)])


def main():
    tensors = {}
    for name in SCALES:
        rng = np.random.default_rng(list(name.encode()))  # a format's blocks do not depend on the others
        blocks = blocks_of(name, rng)
        values = dequantize(blocks, GGMLQuantizationType[name]).astype(np.float32).reshape(len(blocks), -1)
        if name != "BF16":
            assert np.isfinite(values).all(), name
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = values
    save_file(tensors, pathlib.Path(__file__).with_name("blocks.safetensors"))


if __name__ == "__main__":
    main()
