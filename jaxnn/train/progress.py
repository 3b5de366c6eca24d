"""Progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import rich.console
import rich.progress


def say(line: str) -> None:
    """Print a line to standard error."""
    rich.console.Console(stderr=True).print(line, highlight=False, soft_wrap=True)


def silent(line: str) -> None:
    """In place of `say`: print nothing."""


class Bar:
    """A progress bar on a terminal, else one plain line per step; neither if not `enabled`."""

    def __init__(self, total: int, *, enabled: bool = True, text: str = "", width: int = 20) -> None:
        self._console = rich.console.Console(stderr=True)
        self._lines = enabled and not self._console.is_terminal
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            rich.progress.BarColumn(bar_width=width),
            rich.progress.TextColumn("{task.fields[text]}"),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not enabled or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, text=text)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, text: str) -> None:
        """Show `text` beside the bar."""
        self._bar.update(self._task, text=text)

    def step(self, line: str, text: str) -> None:
        """Advance by one; `text` is shown beside the bar, `line` is printed where the output is not a terminal."""
        self._bar.update(self._task, advance=1, text=text)
        if self._lines:
            self.say(line)

    @property
    def done(self) -> float:
        """Steps so far."""
        return self._bar.tasks[self._task].completed

    def to(self, done: float, line: str = "") -> None:
        """Advance to `done` steps; `line`, if any, is printed where the output is not a terminal."""
        self._bar.update(self._task, completed=done)
        if self._lines and line:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line above the bar, even where the bar is disabled."""
        self._console.print(line, highlight=False, soft_wrap=True)


class Progress(Bar):
    """The bar of a fit, over its epochs."""

    def __init__(self, epochs: int, *, enabled: bool = True) -> None:
        self._epochs = epochs
        super().__init__(epochs, enabled=enabled, text="compiling", width=8)

    def show(self, record: Mapping[str, float]) -> None:
        """Advance by one epoch and show its metrics."""
        figures = _figures(record)
        # A bar wider than the terminal, often 80 columns, is truncated.
        short = figures.replace("validation_", "val ").replace("examples/s", "ex/s")
        self.step(f"epoch {record['epoch']:.0f}/{self._epochs}  {figures}", short)


def _figures(record: Mapping[str, float]) -> str:
    """`loss 0.123  validation_error 1.5%  52,000 examples/s`, for one epoch."""
    shown = []
    for name, value in record.items():
        if name in ("epoch", "seconds", "examples_per_second", "learning_rate", "grad_norm"):
            continue
        is_fraction = name.endswith(("error", "accuracy"))
        shown.append(f"{name} {value:.2%}" if is_fraction else f"{name} {value:.4g}")
    return "  ".join([*shown, f"{record['examples_per_second']:,.0f} examples/s"])
