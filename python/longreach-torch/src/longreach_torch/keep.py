"""Keep ratios over the steps of a training: drawn from a list, and annealed."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from .enable import LrsaHandle
from .settings import Lrsa

WORD = (1 << 64) - 1
LONGEST_DENSE = 8192  # tokens of a text; a dense step costs several compressed ones beyond it


class KeepSchedule:
    """The keep ratio r of each step of a run.

    Each step draws one element of a list. An element `"0.5..0.125"` changes with the steps from the
    first value to the second, and each halving takes equally many steps. The draws depend on the
    seed and the step alone, so all processes agree. They are those of `longreach train --seed`.

    Args:
        keep (`str` or `float`): One ratio, such as 0.25, or a list, such as `"1,1,0.5..0.125"`.
        total (`int`): Steps of the run.
        seed (`int`): Seed of the draws.
        in_turn (`bool`): Take each element once in as many steps as there are elements, in random
            order.
    """

    def __init__(
        self, keep: str | float, total: int, seed: int = 0, *, in_turn: bool = False
    ) -> None:
        """Reads the list."""
        self.ratios = [parse(text) for text in str(keep).split(",")]
        self.total = total
        self.seed = seed
        self.in_turn = in_turn

    @classmethod
    def usual(cls, settings: Lrsa, longest: int, total: int, seed: int = 0) -> KeepSchedule:
        """The schedule where nothing is chosen, as in `longreach train`.

        The steps take r, r/2, 1, 1 in random order, where r is the attention's own ratio. They take
        r, r/2, 2r if a text is longer than 8,192 tokens. `longreach train` decides this for each
        step.

        Args:
            settings (`Lrsa`): The attention, with its own keep ratio.
            longest (`int`): Tokens of the longest text.
            total (`int`): Steps of the run.
            seed (`int`): Seed of the order.
        """
        own = settings.keep
        ratios = [own]
        if own < 1.0 and int(own / 2 * settings.lag) > 0:
            ratios.append(own / 2)
        if own < 1.0 and longest <= LONGEST_DENSE:
            ratios += [1.0] * len(ratios)
        elif 2 * own < 1.0:
            ratios.append(2 * own)
        return cls(",".join(map(str, ratios)), total, seed, in_turn=True)

    @property
    def recorded(self) -> float:
        """The ratio to record and to evaluate with: the end of the first element."""
        return self.ratios[0][1]

    def at(self, step: int) -> float:
        """The ratio of a step. Steps count from 1."""
        low, high = self.ratios[self.index(step)]
        if step >= self.total:
            return high
        return low * float((high / low) ** ((step - 1) / max(self.total - 1, 1)))

    def index(self, step: int) -> int:
        """The element of the list that a step takes."""
        count = len(self.ratios)
        if not self.in_turn:
            return draw(self.seed, step, count)
        turn, place = divmod(step - 1, count)
        order = list(range(count))
        for i in range(count - 1, 0, -1):
            j = draw(self.seed, mixed(turn * count + i), i + 1)
            order[i], order[j] = order[j], order[i]
        return order[place]


def parse(text: str) -> tuple[float, float]:
    """Reads `"0.25"` or `"0.5..0.125"` as the first and the last ratio."""
    first, dots, last = text.partition("..")
    try:
        ends = float(first), float(last if dots else first)
    except ValueError:
        ends = (0.0, 0.0)
    if not all(0.0 < end <= 1.0 for end in ends):
        raise ValueError(
            f"{text!r} is no keep ratio: give a number above 0 and up to 1, such as 0.25, or two "
            "of them, such as 0.5..0.125."
        )
    return ends


def draw(seed: int, stream: int, choices: int) -> int:
    """A number below `choices` from xoshiro256++, whose first 16 numbers are left out."""
    state = [seed & WORD, stream & WORD, 0x9E3779B97F4A7C15, 0]
    for _ in range(17):
        number = (rotated(state[0] + state[3], 23) + state[0]) & WORD
        shifted = (state[1] << 17) & WORD
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= shifted
        state[3] = rotated(state[3], 45)
    return ((number >> 32) * choices) >> 32


def mixed(stream: int) -> int:
    """The finaliser of SplitMix64: generators of neighbouring streams begin alike without it."""
    x = (stream + 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def rotated(word: int, bits: int) -> int:
    """The low 64 bits of a word, rotated left."""
    word &= WORD
    return ((word << bits) | (word >> (64 - bits))) & WORD


class KeepCallback(TrainerCallback):  # type: ignore[misc]
    """Sets the keep ratio of each step in a `Trainer`.

    Args:
        handle (`LrsaHandle`): LRSA in the model.
        schedule (`KeepSchedule`): The ratios.
    """

    def __init__(self, handle: LrsaHandle, schedule: KeepSchedule) -> None:
        """Keeps both, and refuses ratios that are too small for the lag."""
        for keep in (end for ends in schedule.ratios for end in ends):
            Lrsa(handle.settings.sink, handle.settings.lag, keep)
        self.handle = handle
        self.schedule = schedule

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets the ratio of the step that begins."""
        self.handle.keep = self.schedule.at(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets the recorded ratio, with which evaluations and saves go on."""
        self.handle.keep = self.schedule.recorded
