#!/usr/bin/env python3
"""Puts a running `longreach serve` under load: so many clients at once, each asking again when it has its answer.

    pip install aiohttp
    target/release/longreach serve --model MODEL --port 8080
    scripts/load-server.py http://127.0.0.1:8080/v1 [--clients 64] [--seconds 600] [--pid PID] [--compress 8]

First one client asks alone. Then all ask at once, and the script prints, for each minute, the requests, the status codes,
the median time to the first token, tokens a second, and the memory of the process (with --pid). A client that is told to
come back later (429, 503) waits as long as it is told. The exit status is 1 if anything else went wrong.
"""
import argparse, asyncio, collections, json, pathlib, random, statistics, sys, time

import aiohttp

WORDS = "river stone lamp garden letter winter bridge candle market horse island shadow silver window music".split()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--words", type=int, default=30, help="words of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--compress", type=float, default=1, help="1 for dense, 8 for 8x")
    parser.add_argument("--pid", type=int)
    return parser.parse_args()


class Load:
    def __init__(self, args, model):
        self.args, self.model = args, model
        self.random = random.Random(1)
        self.done, self.statuses, self.wrong = [], collections.Counter(), []

    def body(self):
        words = " ".join(self.random.choice(WORDS) for _ in range(self.args.words))
        attention = {"attention": "dense"} if self.args.compress == 1 else {"keep": 1 / self.args.compress}
        return {"model": self.model, "prompt": f"Tell me about the {words}.", "max_tokens": self.args.tokens, "stream": True,
                "temperature": 0.8, "stream_options": {"include_usage": True}, "longreach": attention,
                "logit_bias": {}, "seed": self.random.randrange(1 << 30)}

    async def ask(self, session):
        """One request; appends (end, seconds to the first token, tokens)."""
        began = time.monotonic()
        async with session.post(f"{self.args.address}/completions", json=self.body()) as answer:
            self.statuses[answer.status] += 1
            if answer.status in (429, 503):
                await answer.read()
                return float(answer.headers.get("Retry-After", 1))
            if answer.status != 200:
                self.wrong.append(f"{answer.status}: {await answer.text()}")
                return 1.0
            first, tokens, ended = None, 0, False
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    ended = True
                    break
                piece = json.loads(line[6:])
                if "error" in piece:
                    self.wrong.append(str(piece["error"]))
                if first is None and piece.get("choices"):
                    first = time.monotonic() - began
                if usage := piece.get("usage"):
                    tokens = usage["completion_tokens"]
            if not ended or first is None:
                self.wrong.append("a stream broke off")
            else:
                self.done.append((time.monotonic(), first, tokens))
        return 0.0

    async def client(self, session, until):
        while time.monotonic() < until:
            try:
                wait = await self.ask(session)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                self.wrong.append(repr(error))
                wait = 1.0
            if wait:
                await asyncio.sleep(wait)


def rss(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def report(load, since, name):
    done = [row for row in load.done if row[0] >= since]
    seconds = max(time.monotonic() - since, 1e-9)
    median = statistics.median(row[1] for row in done) if done else float("nan")
    line = f"{name}: {len(done)} answers, first token {median:.2f} s, {sum(row[2] for row in done) / seconds:.0f} tokens/s"
    if load.args.pid:
        line += f", {rss(load.args.pid):.0f} MiB"
    print(f"{line}, statuses {dict(load.statuses)}, wrong {len(load.wrong)}", flush=True)
    return median


async def main():
    args = arguments()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        async with session.get(f"{args.address}/models") as answer:
            model = (await answer.json())["data"][0]["id"]
        load = Load(args, model)
        began = time.monotonic()
        for _ in range(5):
            await load.ask(session)
        alone = report(load, began, "one client")
        load.statuses.clear()
        began = time.monotonic()
        clients = [asyncio.create_task(load.client(session, began + args.seconds)) for _ in range(args.clients)]
        minute = began
        while any(not client.done() for client in clients):
            await asyncio.wait(clients, timeout=60)
            report(load, minute, f"{(time.monotonic() - began) / 60:5.1f} min")
            minute = time.monotonic()
        together = report(load, began, "all")
        print(f"first token: {together / alone:.1f} times that of one client")
        for what, n in collections.Counter(load.wrong).most_common(5):
            print(f"wrong, {n} times: {what}")
        sys.exit(1 if load.wrong else 0)


asyncio.run(main())
