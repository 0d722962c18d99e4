//! Recordings on a GPU through wgpu: adapters, devices, pipelines, memory, submits.

pub(super) mod adapter;
pub(super) mod beat;
pub(super) mod choice;
pub(super) mod choice_store;
pub(super) mod device;
pub(super) mod encode;
pub(super) mod executor;
pub(super) mod faults;
pub(super) mod flight;
pub(super) mod memory;
pub(super) mod open_options;
pub(super) mod pace;
pub(super) mod part;
pub(super) mod pipelines;
pub(super) mod pool;
pub(super) mod replay;
pub(super) mod room;
pub(super) mod subgroup_test;
pub mod texels;
pub(super) mod timestamps;
