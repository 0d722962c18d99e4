//! Adapters, devices, recordings and the executors that run them.
