//! Floor 9: what follows from the cases about devices, and about the cases themselves.

pub mod mutation;
