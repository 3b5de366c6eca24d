"""The results of a race, and the numbers derived from them."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
import optax

import jaxnn
from jaxnn import files
from jaxnn.checks import count_of
from jaxnn.compare.costs import StepCost

NEAR = 1.25
"""A learning rate is good if its metric m <= best + (NEAR - 1) |best|: for a positive best, m <= NEAR best."""


def shown(name: str) -> tuple[float, str]:
    """The factor and label with which a metric is shown: errors and accuracies in percent."""
    if name.endswith(("error", "accuracy")):
        return 100.0, f"{name.replace('_', ' ')} (%)"
    return 1.0, "training loss" if name == "loss" else name.replace("_", " ")


def versions() -> dict[str, str]:
    """The environment of a measurement: versions, device, cores."""
    devices = jax.devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}", "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "jaxnn": jaxnn.__version__, "jax": jax.__version__, "numpy": np.__version__, "optax": optax.__version__,
        "matplotlib": matplotlib.__version__,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Result:
    """One optimizer on one problem.

    Attributes:
        optimizer, problem: their names.
        figure: the name of the metric used for tuning, lower is better.
        rates: (S,), the learning rates tried, in ascending order.
        tuning: (S, T), the metric after the last epoch for each rate and tuning seed; inf where the run diverged.
        rate: the rate with the lowest mean metric, used for the runs below.
        curves: name -> (R, E), R fresh seeds, E epochs: "loss", "validation_*", and those of `compare.diagnostics`.
        final: (R,), the metric after the last epoch, of the test set where the problem has one, else of the validation
            set (for the figure "loss" the training loss); inf where the run diverged.
        final_name: the name of that metric, e.g. "test_error".
        steps: number of steps per epoch.
        target: the value of the metric that counts as solved, or None.
        cost: time and memory of one step; None if not measured.
    """

    optimizer: str
    problem: str
    figure: str
    rates: np.ndarray
    tuning: np.ndarray
    rate: float
    curves: Mapping[str, np.ndarray]
    final: np.ndarray
    final_name: str
    steps: int
    target: float | None
    cost: StepCost | None = None

    @property
    def diverged(self) -> int:
        """The number of diverged runs out of R."""
        return int(np.sum(~np.isfinite(self.final)))

    @property
    def performance(self) -> float:
        """The mean final metric; inf if a run diverged."""
        return float(np.mean(self.final))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile of the final metrics, without interpolation; those of diverged runs are inf."""
        low, high = (float(np.quantile(self.final, q, method="inverted_cdf")) for q in (0.25, 0.75))
        return low, high

    @property
    def steps_to_target(self) -> np.ndarray:
        """(R,), the steps until the metric after an epoch reaches the target; inf if never, or without a target."""
        curve = self.curves[self.figure]
        if self.target is None:
            return np.full(len(curve), np.inf)
        reached = curve <= self.target  # False for NaN
        first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
        return first * self.steps

    @property
    def seconds_to_target(self) -> np.ndarray:
        """(R,), those steps in seconds of a single run; NaN if the cost was not measured."""
        return self.steps_to_target * (np.nan if self.cost is None else self.cost.step_seconds)

    @property
    def tuned(self) -> np.ndarray:
        """(S,), the mean metric of each rate over the tuning seeds; inf where one diverged."""
        return np.mean(self.tuning, axis=1)

    @property
    def tuneability(self) -> float:
        """Decades of the learning rate around the best within which it is good (see `NEAR`).

        The width of the contiguous range of good rates, up to the middle (of the logarithms) between its last rate and
        the next, or to the end of the grid; 0 for a grid of one rate, or if no metric is finite.
        """
        tuned, best = self.tuned, int(np.argmin(self.tuned))
        if not np.isfinite(tuned[best]) or len(self.rates) < 2:
            return 0.0
        good = tuned <= tuned[best] + (NEAR - 1) * abs(tuned[best])
        low = high = best
        while low > 0 and good[low - 1]:
            low -= 1
        while high + 1 < len(good) and good[high + 1]:
            high += 1
        logs = np.log10(self.rates)
        edges = np.concatenate([logs[:1], (logs[1:] + logs[:-1]) / 2, logs[-1:]])
        return float(edges[high + 1] - edges[low])

    @property
    def at_the_edge(self) -> bool:
        """Whether the best rate is the smallest or largest of several, so that a better one may lie outside."""
        tried = len(self.rates) > 1 and bool(np.isfinite(self.tuned).any())
        return tried and self.rate in (self.rates[0], self.rates[-1])

    def summary(self) -> dict[str, Any]:
        """The row of the table in JSON types, inf and NaN as None."""
        steps, seconds = np.median(self.steps_to_target), np.median(self.seconds_to_target)
        row = {
            "problem": self.problem,
            "optimizer": self.optimizer,
            "learning_rate": self.rate,
            "at_the_edge": self.at_the_edge,
            "tuned_on": self.figure,
            "figure": self.final_name,
            "performance": self.performance,
            "first_quartile": self.quartiles[0],
            "third_quartile": self.quartiles[1],
            "diverged": self.diverged,
            "target": self.target,
            "reached": int(np.sum(np.isfinite(self.steps_to_target))),
            "runs": len(self.final),
            "median_steps_to_target": float(steps),
            "median_seconds_to_target": float(seconds),
            "tuneability_decades": self.tuneability,
        }
        row |= dict.fromkeys(f.name for f in dataclasses.fields(StepCost)) if self.cost is None else vars(self.cost)
        return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in row.items()}


@dataclasses.dataclass(frozen=True, repr=False)
class Race:
    """The results of a race, problem by problem, in the order in which the optimizers were named.

    Attributes:
        results: one per finished pair of optimizer and problem.
        ways: landscape name -> optimizer -> (learning rate, points (T, 2)): trajectories in two dimensions.
        settings: names, learning rates, numbers of seeds, seed, and by problem epochs and batch size, in JSON types.
        notes: by problem: its source, published results, and whether they are comparable.
    """

    results: tuple[Result, ...]
    ways: Mapping[str, Mapping[str, tuple[float, np.ndarray]]]
    settings: Mapping[str, Any]
    notes: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        found = count_of(len(self.results), "result")
        return f"Race of {', '.join(self.optimizers)} on {', '.join(self.problems)}: {found}"

    @property
    def problems(self) -> tuple[str, ...]:
        """The names of the problems, in order."""
        return tuple(dict.fromkeys(r.problem for r in self.results))

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The names of the optimizers, in order."""
        return tuple(dict.fromkeys(r.optimizer for r in self.results))

    def of(self, problem: str) -> tuple[Result, ...]:
        """The results on one problem."""
        return tuple(r for r in self.results if r.problem == problem)

    def table(self) -> dict[str, np.ndarray]:
        """One row per problem, optimizer, seed and epoch of the fresh runs, as columns; NaN where a curve is absent."""
        names = list(dict.fromkeys(name for r in self.results for name in r.curves))
        parts: dict[str, list[Any]] = {name: [] for name in ("problem", "optimizer", "rate", "seed", "epoch", *names)}
        for r in self.results:
            seeds, epochs = r.curves["loss"].shape
            rows = seeds * epochs
            for name, value in (("problem", r.problem), ("optimizer", r.optimizer), ("rate", r.rate)):
                parts[name].append(np.full(rows, value))
            parts["seed"].append(np.repeat(np.arange(seeds), epochs))
            parts["epoch"].append(np.tile(np.arange(1, epochs + 1), seeds))
            for name in names:
                parts[name].append(r.curves[name].reshape(-1) if name in r.curves else np.full(rows, np.nan))
        return {name: np.concatenate(part) if part else np.zeros(0) for name, part in parts.items()}

    def save(self, folder: str | Path) -> Path:
        """Write race.json (versions, settings, notes, results), curves.npz, curves.csv (`table`); return the folder."""
        folder = files.make_folder(folder)
        told = {
            "measured_on": versions(),
            "settings": self.settings,
            "notes": self.notes,
            "results": [self._told(r) for r in self.results],
        }
        files.write_json(folder / "race.json", told, indent=1)
        table = self.table()
        files.write_npz(folder / "curves.npz", table, compressed=True)
        rows = zip(*(column.tolist() for column in table.values()), strict=True)
        files.write_csv(folder / "curves.csv", table, rows)
        return folder

    @staticmethod
    def _told(result: Result) -> dict[str, Any]:
        tuning = [[None if not np.isfinite(v) else float(v) for v in row] for row in result.tuning]
        final = [None if not np.isfinite(v) else float(v) for v in result.final]
        return result.summary() | {"rates": result.rates.tolist(), "tuning": tuning, "final": final}
