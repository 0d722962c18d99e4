#!/usr/bin/env python3
"""Compares what `train --dry-run` forecasts with what a run takes, on eight settings.

    scripts/fetch-models models
    cargo build --release
    scripts/compare-forecast.py target/release/longreach models/smollm2.gguf [--tokens 768] [--steps 2]

For each setting the script prints the forecast peak of device memory, the peak that the run measured, and the largest
resident size of the process, which also holds the program, the tokenizer and the mapped model file; and the forecast
and the measured time of a step. The exit status is 1 if a forecast of memory is off by more than 10 %.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile

ASSETS = pathlib.Path(__file__).resolve().parent.parent / "assets"
COMPRESSED = ["--keep", "0.25"]  # the same r in every step, so that each step takes as much
SETTINGS = {
    "LoRA, at once": COMPRESSED,
    "LoRA, recomputed": [*COMPRESSED, "--recompute"],
    "LoRA, chunks of 256": [*COMPRESSED, "--chunk", "256"],
    "dense, at once": ["--attention", "dense"],
    "two sequences": [*COMPRESSED, "--batch-size", "2"],
    "distilled, chunks of 256": [*COMPRESSED, "--distill", "0.5", "--chunk", "256"],
    "rank 64, Lion": [*COMPRESSED, "--rank", "64", "--optimizer", "lion"],
    "full, recomputed": [*COMPRESSED, "--method", "full", "--recompute"],
}


def run(command):
    """The JSON object that a command prints, and its largest resident size in MiB."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err)
        _, status, usage = os.wait4(program.pid, 0)
        out.seek(0)
        err.seek(0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"{' '.join(map(str, command))} failed:\n{err.read().decode()}")
        return json.loads(out.read()), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longreach", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=768, help="tokens of an example")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    lines = (ASSETS / "moby-dick.txt").read_text(encoding="utf-8").split("\n")
    print("| Setting | Forecast MiB | Measured MiB | Off | Resident MiB | Forecast s/step | Measured s/step |\n|---|---|---|---|---|---|---|")
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "train.jsonl")
        pages = [" ".join(lines[i : i + 40]) for i in (2, 60)]
        data.write_text("".join(json.dumps({"text": page}) + "\n" for page in pages))
        for i, (name, flags) in enumerate(SETTINGS.items()):
            command = [args.longreach, "train", "--model", args.model, "--data", data, "--out", pathlib.Path(folder, str(i)),
                       "--steps", args.steps, "--max-length", args.tokens, "--device", "cpu", "--json", *flags]
            forecast, _ = run([*command, "--dry-run"])
            planned = sum(forecast["memory"].values()) / 2**20
            done, resident = run(command)
            measured = done["peak_bytes"] / 2**20
            off = planned / measured - 1
            fine &= abs(off) <= 0.1
            seconds = done["tokens"] / done["tokens_per_s"] / args.steps
            print(f"| {name} | {planned:.1f} | {measured:.1f} | {100 * off:+.1f} % | {resident:.0f} "
                  f"| {forecast['seconds_per_step']:.1f} | {seconds:.1f} |", flush=True)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
