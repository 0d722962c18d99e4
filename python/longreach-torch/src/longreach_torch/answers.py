"""Finds what the assistant says in the text of a chat template, by the rules of Longreach.

An answer begins where the prompt that the model gets in generation ends. It ends with the mark that
the template writes after an answer. Templates rewrite answers, so the template renders the
conversation again with a marker in place of one. What both texts have in common around the marker
is not part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Message = dict[str, Any]
Render = Callable[[list[Message], bool], "str | None"]
"""Renders messages, with a generation prompt or without. `None` if the template refuses them."""


class Around(NamedTuple):
    """The text before and after a marker."""

    before: str
    after: str


class Answers:
    """The answers of one conversation.

    Args:
        messages (`list[dict]`): The conversation.
        text (`str`): What the template wrote of it.
        eos_token (`str`): The token that ends a text.
        render (`Render`): The template.
    """

    def __init__(self, messages: list[Message], text: str, eos_token: str, render: Render) -> None:
        """Chooses a marker that occurs nowhere."""
        said = text + repr(messages)
        letters = (chr(code) for code in range(0x100000, 0x10FFFE))
        self.mark = next(letter for letter in letters if letter not in said)
        self.messages, self.text, self.eos_token, self.render = messages, text, eos_token, render

    def spans(self, numbers: list[int]) -> list[tuple[int, int]]:
        """The ranges of characters of the messages with these numbers, in ascending order.

        Leaves out answers that the template does not show.
        """
        spans: list[tuple[int, int]] = []
        end_mark = ""
        for i in reversed(numbers):
            plain = {"role": self.messages[i]["role"], "content": self.mark}
            payload = self.payload(i, plain)
            if payload is None:
                continue
            after = self.text[payload[1] :]
            if not end_mark or not after.startswith(end_mark):
                end_mark = self.end_mark(i, plain, after)
            start, end = self.start(i, *payload), payload[1] + len(end_mark)
            if start > end or (spans and end > spans[-1][0]):
                raise self.lost(i)
            spans.append((start, end))
        return spans[::-1]

    def around(self, i: int, message: Message, n: int, prompt: bool) -> Around | None:
        """Renders the first n messages with another one as number i, which holds the marker."""
        changed = [*self.messages[:i], message, *self.messages[i + 1 : n]]
        shown = self.render(changed, prompt)
        if shown is None or self.mark not in shown:
            return None
        return Around(shown[: shown.find(self.mark)], shown[shown.rfind(self.mark) + 1 :])

    def payload(self, i: int, plain: Message) -> tuple[int, int] | None:
        """The range that depends on message i. `None` if the template does not show it."""
        around = self.around(i, plain, len(self.messages), False)
        if around is not None and self.text.endswith(around.after):
            end = len(self.text) - len(around.after)
            return shared(self.text[:end], around.before), end
        changed = [*self.messages[:i], plain, *self.messages[i + 1 :]]
        if self.render(changed, False) == self.text:
            return None
        raise self.lost(i)

    def end_mark(self, i: int, plain: Message, after: str) -> str:
        """What the template writes after the last answer of a conversation."""
        tail = after
        if i + 1 < len(self.messages):
            around = self.around(i, plain, i + 1, False)
            if around is None:
                raise self.lost(i)
            tail = around.after
        mark = tail.rstrip() or tail or self.eos_token
        return mark if after.startswith(mark) else ""

    def start(self, i: int, first: int, end: int) -> int:
        """Where the answer begins, given the range that depends on it."""
        prompt = self.render(self.messages[:i], True)
        if prompt and len(prompt) <= end and self.text.startswith(prompt):
            return len(prompt)
        content_end, prompt_end = self.after_previous(i)
        if prompt_end is not None and prompt_end <= end:
            return prompt_end
        for messages in (self.messages[:i], self.messages):
            header = self.header(messages)
            if header:
                found = self.text.rfind(header, content_end, min(first + len(header), end))
                return first if found < 0 else found + len(header)
        return first

    def header(self, messages: list[Message]) -> str | None:
        """The generation prompt alone."""
        prompt, text = self.render(messages, True), self.render(messages, False)
        if prompt is None or text is None or not prompt.startswith(text):
            return None
        return prompt[len(text) :]

    def after_previous(self, i: int) -> tuple[int, int | None]:
        """Where the content of the message before ends, and where the prompt of message i ends.

        The second is `None` unless the text goes on after that content as the prompt does.
        """
        if i == 0 or not isinstance(self.messages[i - 1].get("content"), str):
            return 0, None
        marked = {**self.messages[i - 1], "content": self.mark}
        shown = self.around(i - 1, marked, len(self.messages), False)
        if shown is None or not self.text.endswith(shown.after):
            return 0, None
        content_end = len(self.text) - len(shown.after)
        prompt = self.around(i - 1, marked, i, True)
        if prompt is None or not prompt.after or not shown.after.startswith(prompt.after):
            return content_end, None
        return content_end, content_end + len(prompt.after)

    def lost(self, i: int) -> ValueError:
        """The error for an answer that cannot be found."""
        return ValueError(
            f"cannot find the answer of message {i + 1} in the output of the chat template: use "
            'lines of {"prompt", "completion"} with strings instead'
        )


def shared(a: str, b: str) -> int:
    """Number of letters that two texts share at the start."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
