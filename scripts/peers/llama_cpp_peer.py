#!/usr/bin/env python3
"""Times llama.cpp on a GGUF file, on the CPU, and prints one line of JSON:

    llama_cpp_peer.py FILE.gguf IDS.json NEW_TOKENS THREADS
    llama_cpp_peer.py FILE.gguf --cache-tokens N NEW_TOKENS THREADS

The first form loads the model, reads a prompt of ids and continues it greedily. The second fills the cache with N
tokens and times decode alone. What the cache holds does not change the speed: it has the pairs of a short prompt
over and over, each copy in cells of its own. Needs llama-cpp-python; its import is not part of the times.
"""
import ctypes
import json
import resource
import sys
import time

import llama_cpp
from llama_cpp import Llama


class Clock:
    """Wall and CPU seconds since the last lap."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self):
        before = self.wall, self.cpu
        self.__init__()
        return self.wall - before[0], self.cpu - before[1]


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prompt_and_decode(path, ids, new, threads):
    """Load, first token, prefill and decode."""
    clock = Clock()
    model = Llama(path, n_ctx=len(ids) + new + 8, n_batch=max(len(ids), 8), n_threads=threads,
                  n_threads_batch=threads, verbose=False)
    model.eval(ids[:1])
    model.sample(temp=0)
    first_token, _ = clock.lap()
    model.reset()
    clock.lap()
    model.eval(ids)
    out = [model.sample(temp=0)]
    prefill = clock.lap()
    while len(out) < new:
        model.eval([out[-1]])
        out.append(model.sample(temp=0))
    decode = clock.lap()
    return {"first_token_s": first_token, "prefill": prefill, "decode": decode, "ids": out, "peak_mib": peak_mib()}


def decode_after(path, tokens, new, threads):
    """Decode with a cache of so many tokens."""
    copies = min(max(tokens // 1024, 1), llama_cpp.llama_max_parallel_sequences())
    piece = tokens // copies
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_seq_max, options.kv_unified = tokens + new + 256, piece, copies, True
    options.n_threads = options.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, options)
    ids = (ctypes.c_int32 * piece)(*[(i * 7919 + 11) % 30011 for i in range(piece)])

    def run(ids, n):
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, n)) != 0:
            sys.exit("llama_decode failed")
        llama_cpp.llama_synchronize(context)

    run(ids, piece)
    size = llama_cpp.llama_state_seq_get_size(context, 0)
    state = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, state, size, 0)
    memory = llama_cpp.llama_get_memory(context)
    for sequence in range(1, copies):
        if llama_cpp.llama_state_seq_set_data(context, state, size, sequence) == 0:
            sys.exit("the cache has no room for a copy of the prompt's state")
        llama_cpp.llama_memory_seq_cp(memory, sequence, 0, -1, -1)
    one = (ctypes.c_int32 * 1)(1)
    run(one, 1)
    clock = Clock()
    for _ in range(new):
        run(one, 1)
    return {"decode": clock.lap(), "tokens": new, "cache_tokens": piece * copies, "peak_mib": peak_mib()}


def main():
    if sys.argv[2] == "--cache-tokens":
        path, _, tokens, new, threads = sys.argv[1:]
        print(json.dumps(decode_after(path, int(tokens), int(new), int(threads))))
    else:
        path, ids, new, threads = sys.argv[1:]
        with open(ids, encoding="utf-8") as file:
            prompt = json.load(file)[0]
        print(json.dumps(prompt_and_decode(path, prompt, int(new), int(threads))))


main()
