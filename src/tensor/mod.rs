//! Shapes, element types, host tensors and the files they are read from.
