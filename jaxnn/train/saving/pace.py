"""How much work to do between two looks at the clock, and when a save is due."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from jaxnn.checks import require_positive_int

SaveEvery: TypeAlias = int | float | datetime.timedelta
"""A number of steps (an int), or a time: seconds (a float) or a timedelta."""

SAVE_EVERY = 60.0
"""Seconds between two saves, unless the caller says otherwise."""

PIECE_SECONDS = 1.0
"""How long the steps between two looks at the clock, and at signals, should take."""

SLOW_STEP = 0.02
"""Seconds of a step from which on single steps are run: their dispatch costs no more than a hundredth."""


class Pace:
    """Pieces of work that end where a save is due, or take about a second.

    Each length of a piece is a program of its own. A number of steps therefore makes equal pieces of an epoch, none
    longer than that, and a save is due before the piece with which there would be more steps than that since the last.

    Args:
        where: whose argument it is, for messages.
        every: when to save.
        agree: makes one number of those of all processes that work in step.
    """

    def __init__(self, where: str, every: SaveEvery, agree: Callable[[int], int] = int) -> None:
        self._steps, self._seconds = _interval(where, every)
        self._agree = agree
        self._saved_at = time.monotonic()
        self._piece, self._timed = 1, False
        self._saved_after: int | None = None  # steps in all, at the last save that was due

    def length(self, done: int, left: int, total: int | None) -> int:
        """How many steps to do until the next look.

        Args:
            done: steps in all.
            left: steps until the end of the epoch.
            total: steps of an epoch; None if that is not known.
        """
        if self._steps:
            if self._saved_after is None:
                self._saved_after = done
            self._piece = self._steps if total is None else -(-total // -(-total // self._steps))
            before = done if total is None else total - left
            return min(self._piece - before % self._piece, left)
        piece = self._agree(self._piece)
        if total is not None and total <= 2 * piece:
            piece = total
        # What is left of a piece is done in single steps, which are compiled already.
        return piece if piece <= left else 1

    def ran(self, count: int, seconds: float) -> None:
        """Learn from a piece how many steps the next may have. The first one includes compilation."""
        if count == self._piece == 1:
            if self._timed and (each := seconds / count) < SLOW_STEP:
                goal = min(PIECE_SECONDS, self._seconds / 4) / max(each, 1e-6)
                self._piece = 2 ** max(int(math.log2(max(goal, 1))), 0)
            self._timed = True

    def due(self, done: int) -> bool:
        """Whether it is time for a save, after `done` steps in all."""
        if self._steps:
            due = done - (self._saved_after or 0) + self._piece > self._steps
            self._saved_after = done if due else self._saved_after
            return due
        return bool(self._agree(time.monotonic() - self._saved_at >= self._seconds))

    def saved(self) -> None:
        """Note that a save was made now."""
        self._saved_at = time.monotonic()


def _interval(where: str, every: Any) -> tuple[int, float]:
    """(steps, seconds) of `save_every`, one of them 0; raises unless it is a positive number of steps or a time."""
    if isinstance(every, datetime.timedelta):
        every = every.total_seconds()
    if isinstance(every, float):
        if not (every > 0 and math.isfinite(every)):
            raise ValueError(
                f"{where}: save_every must be > 0: steps (an int) or seconds (a float or a timedelta), got {every}."
            )
        return 0, every
    return require_positive_int(where, "save_every", every), 0.0
