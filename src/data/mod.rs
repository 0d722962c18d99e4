//! Text in: tokenizers, datasets, packing.
