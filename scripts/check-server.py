#!/usr/bin/env python3
"""Asks a running `longreach serve` with the programs that people use: OpenAI's Python client and lm-eval.

    pip install openai "lm-eval[api]" transformers
    cargo build --release
    scripts/check-server.py target/release/longreach [MODEL...]

The bundled model is always asked. Each MODEL, a folder or a GGUF file with a chat template, is asked for conversations
too; one whose template shows tools, for tool calls. lm-eval's log-likelihoods on the task in scripts/serve-task must
equal those of `longreach probe` within 1e-4. The exit status is 1 if an answer is not what OpenAI's interface promises.
"""
import argparse, contextlib, json, pathlib, re, subprocess, sys, tempfile

import openai
import transformers
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

HERE = pathlib.Path(__file__).resolve().parent
STORIES = HERE.parent / "assets/stories260k"
BOUND = 1e-4
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}
failures = []


def check(what, holds):
    print(f"  {'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        failures.append(what)


@contextlib.contextmanager
def serving(program, model, *flags):
    """A server on a free port; yields the address of its interface."""
    args = [program, "serve", "--model", str(model), "--port", "0", "--device", "cpu", *flags]
    server = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    try:
        address = None
        for line in server.stderr:
            if found := re.match(r"listening on (\S+)", line):
                address = found.group(1)
            if line.startswith("ready"):
                break
        if not address:
            sys.exit(f"the server did not start: {args}")
        yield address
    finally:
        server.terminate()
        server.communicate(timeout=60)
        check("the server ends in order", server.returncode == 0)


def refuses(ask, kind, **wanted):
    """Whether asking raises an error of this kind whose body has these fields."""
    try:
        ask()
    except kind as error:
        return all(getattr(error, name) == value for name, value in wanted.items())
    return False


def check_completions(client, model):
    ask = lambda **more: client.completions.create(**{"model": model, "prompt": "Once upon a time", "max_tokens": 12, **more})
    plain = ask(temperature=0)
    check("a completion has text and usage", plain.choices[0].text and plain.usage.completion_tokens <= 12)
    pieces = list(ask(temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    check("a stream has the same text and ends with usage", text == plain.choices[0].text and pieces[-1].usage.total_tokens)
    several = ask(n=3, seed=5, temperature=1.0)
    again = ask(n=3, seed=5, temperature=1.0)
    texts = lambda answer: [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
    check("a seed gives the same answers", texts(several) == texts(again) and len(set(texts(several))) > 1)
    lists = ask(prompt=["The dog", "The cat"], temperature=0)
    check("two prompts have two answers", [choice.index for choice in lists.choices] == [0, 1])
    echoed = ask(echo=True, logprobs=3, max_tokens=1, temperature=0)
    logprobs = echoed.choices[0].logprobs
    check("echo covers the prompt", echoed.choices[0].text.startswith("Once upon a time") and logprobs.token_logprobs[0] is None
          and all(len(top) >= 3 for top in logprobs.top_logprobs[1:]))
    word = plain.choices[0].text.split()[1]
    stopped = ask(temperature=0, stop=[word])
    check("a stop text ends the answer", word not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop")
    check("an unknown model is 404", refuses(lambda: ask(model="none"), openai.NotFoundError, code="model_not_found"))
    check("a wrong field is named", refuses(lambda: ask(temperature=-1), openai.BadRequestError, param="temperature"))
    check("embeddings are refused by name", refuses(lambda: client.embeddings.create(model=model, input="a"),
                                                    openai.APIStatusError))
    dense = ask(temperature=0, extra_body={"longreach": {"attention": "dense"}})
    check("a request may choose its attention", bool(dense.choices[0].text))


def check_chat(client, model):
    turns = [{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": "Name a colour."}]
    ask = lambda **more: client.chat.completions.create(**{"model": model, "messages": turns, "max_tokens": 24, **more})
    plain = ask(temperature=0)
    check("an answer has content", bool(plain.choices[0].message.content))
    pieces = list(ask(temperature=0, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    check("a stream has the same text", text == plain.choices[0].message.content)
    check("the first piece names the role", pieces[0].choices[0].delta.role == "assistant")
    scored = ask(temperature=0, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    check("tokens have probabilities", all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in scored))
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    person = json.loads(ask(response_format=form, max_tokens=120, seed=1).choices[0].message.content)
    check("an answer follows a schema", set(person) == {"name", "age"} and isinstance(person["age"], int))
    again = ask(messages=turns + [{"role": "assistant", "content": text}, {"role": "user", "content": "And another " * 60}])
    once_more = ask(messages=turns + [{"role": "assistant", "content": text}, {"role": "user", "content": "And another " * 60}])
    check("a repeated beginning is read once", once_more.usage.prompt_tokens_details.cached_tokens > 0 and again.choices)


def check_tools(client, model):
    turns = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]
    try:
        answer = client.chat.completions.create(model=model, messages=turns, tools=[WEATHER], temperature=0, max_tokens=100)
    except openai.BadRequestError as error:
        print(f"  --   no tools: {error.message}")
        return
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    check(f"a tool is called ({choice.message.content or ''!r})", [call.function.name for call in calls] == ["get_weather"]
          and "Paris" in json.loads(calls[0].function.arguments).get("city", "") and choice.finish_reason == "tool_calls")
    if calls:
        turns += [choice.message.model_dump(exclude_none=True),
                  {"role": "tool", "tool_call_id": calls[0].id, "content": json.dumps({"weather": "rain, 12 degrees"})}]
        said = client.chat.completions.create(model=model, messages=turns, tools=[WEATHER], temperature=0, max_tokens=60)
        check(f"its result is used ({said.choices[0].message.content!r})", "rain" in (said.choices[0].message.content or ""))


def probe(program, ids, n_context):
    """The log-likelihood of the tokens after the context, by `longreach probe`."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "ids.json").write_text(json.dumps([ids]))
        (folder / "labels.json").write_text(json.dumps([[-100] * n_context + ids[n_context:]]))
        subprocess.run([program, "probe", "--model", STORIES, "--ids", folder / "ids.json", "--labels", folder / "labels.json",
                        "--out", folder / "out.safetensors", "--attention", "dense", "--device", "cpu"], check=True, capture_output=True)
        from safetensors.numpy import load_file
        return -float(load_file(folder / "out.safetensors")["loss"].reshape(-1)[0]) * (len(ids) - n_context)


def check_lm_eval(program, address):
    tokenizer = transformers.AutoTokenizer.from_pretrained(STORIES)
    with tempfile.TemporaryDirectory() as folder:
        task = (HERE / "serve-task/story_words.yaml").read_text()
        task = task.replace("STORY_WORDS", str(HERE / "serve-task/story_words.jsonl"))
        (pathlib.Path(folder) / "story_words.yaml").write_text(task)
        model_args = {"model": "stories260k", "base_url": f"{address}/completions", "tokenizer": str(STORIES),
                      "tokenizer_backend": "huggingface", "num_concurrent": 4, "max_length": 512}
        done = simple_evaluate(model="local-completions", model_args=model_args, tasks=["story_words"],
                               task_manager=TaskManager(include_path=folder), log_samples=True, bootstrap_iters=0)
    worst = 0.0
    for sample in done["samples"]["story_words"]:
        for request, (answer,) in zip(sample["arguments"], sample["resps"]):
            context, continuation = request if isinstance(request, (list, tuple)) else (request["arg_0"], request["arg_1"])
            ids_of = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
            whole, n_context = ids_of(context + continuation), len(ids_of(context))
            worst = max(worst, abs(float(answer[0]) - probe(program, whole, n_context)))
    accuracy = done["results"]["story_words"]["acc,none"]
    check(f"lm-eval's log-likelihoods are those of probe (largest difference {worst:.1e}; accuracy {accuracy:.2f})", worst < BOUND)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("longreach", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("models", nargs="*")
    args = parser.parse_args()
    print("stories260k")
    with serving(args.longreach, "stories260k") as address:
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        check_completions(client, "stories260k")
        check("a conversation needs a template", refuses(lambda: client.chat.completions.create(
            model="stories260k", messages=[{"role": "user", "content": "a"}]), openai.BadRequestError))
        check_lm_eval(args.longreach, address)
    for model in args.models:
        print(model)
        with serving(args.longreach, model) as address:
            client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
            name = client.models.list().data[0].id
            check_completions(client, name)
            check_chat(client, name)
            check_tools(client, name)
    sys.exit(f"{len(failures)} failed: {failures}" if failures else 0)


if __name__ == "__main__":
    main()
