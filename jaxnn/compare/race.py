"""Races: each optimizer tuned on each problem by one protocol, then run with fresh seeds.

The protocol is DeepOBS': a grid of learning rates, one seed (or a few) each; the rate whose final metric on the
validation set is best; then runs with fresh seeds at that rate, whose final metrics on the test set count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import train
from jaxnn.checks import count_of, nearest_name, require_positive_int
from jaxnn.compare import diagnostics, problems
from jaxnn.compare.costs import costs
from jaxnn.compare.entries import Entry, entries, grid, require_distinct, words
from jaxnn.compare.problems import Problem
from jaxnn.compare.result import Race, Result
from jaxnn.landscapes import LANDSCAPES, Landscape
from jaxnn.train import Sweep
from jaxnn.train.progress import Bar

RATES = "log:1e-4:1:13"
"""The default learning rates: three per decade."""

WAY_STEPS = 300
"""Steps of the trajectories on landscapes of two dimensions."""


def race(
    optimizers: str | Iterable[str | Entry],
    on: str | Problem | Iterable[str | Problem],
    *,
    learning_rates: str | Iterable[float] = RATES,
    seeds: int = 10,
    tuning_seeds: int = 1,
    epochs: int | None = None,
    ways_on: str | Iterable[str] = ("rosenbrock",),
    seed: int = 0,
    folder: str | Path | None = None,
    memory: int | None = None,
    chunk: int | None = None,
    on_result: Callable[[Race], None] | None = None,
    progress: bool = True,
) -> Race:
    """Tune each optimizer's learning rate on each problem, run it with fresh seeds; performance, speed and robustness.

    1. One run per learning rate and tuning seed; the rate with the lowest mean of `Problem.figure`, a metric on the
       validation set or the training loss, after the last epoch is chosen (ties: the lower validation loss). Rates at
       which a run diverges rank last.
    2. At that rate one run for each of `seeds` fresh seeds, with diagnostics. Their metric on the test set after the
       last epoch is the performance; for a problem without a test set, that on the validation set.
    3. Steps and seconds to the problem's target come from those runs' validation metrics and from the step time of a
       single run, measured with the optimizers taking turns.

    Args:
        optimizers: names as for `entry`, comma-separated or as a list, or entries of your own.
        on: names of problems, comma-separated or as a list, or problems of your own.
        learning_rates: as for `grid`, the same for all.
        seeds: fresh runs of each optimizer on each problem.
        tuning_seeds: runs at each learning rate.
        epochs: of every run; None for each problem's own.
        ways_on: names of two-dimensional landscapes, comma-separated or as a list, on which trajectories are
            recorded, at the rate of the grid with the lowest final value.
        seed: of all random keys: initial parameters, order of the examples, random layers.
        folder: stores finished runs; an interrupted race resumes from there. None: nothing is stored.
        memory, chunk: as for `train.map_runs`.
        on_result: called with the race so far after each optimizer on each problem.
        progress: whether to show a bar with the time left.

    Returns:
        Race, whose `results` hold one Result per problem and optimizer.

    Raises:
        ValueError: an unknown name (the nearest is suggested), one that is repeated, no optimizer, problem or learning
            rate, or a number of runs or epochs below 1.
        TypeError: an optimizer or a problem is neither a name nor an Entry or a Problem.

    Example:
        >>> found = race("sgd,adam", "quadratic", learning_rates="1e-3,1e-2", seeds=2, epochs=3, ways_on=(),
        ...              progress=False)
        >>> [(r.optimizer, r.rate) for r in found.results]
        [('sgd', 0.01), ('adam', 0.01)]

    Reference: Schneider, F., Balles, L. & Hennig, P. (2019). DeepOBS: a deep learning optimizer benchmark suite.
    """
    who, rates, what = entries(optimizers), grid(learning_rates), _problems(on)
    places = {name: _landscape(name) for name in (words(ways_on) if isinstance(ways_on, str) else ways_on)}
    seeds = require_positive_int("race", "seeds", seeds)
    tuning_seeds = require_positive_int("race", "tuning_seeds", tuning_seeds)
    if epochs is not None:
        require_positive_int("race", "epochs", epochs)
    settings = {
        "optimizers": [each.name for each in who], "problems": [problem.name for problem in what],
        "learning_rates": rates.tolist(), "tuning_seeds": tuning_seeds, "seeds": seeds, "seed": seed,
        "epochs": {problem.name: epochs or problem.epochs for problem in what},
        "batch_sizes": {problem.name: problem.batch_size for problem in what},
    }  # fmt: skip
    notes = {problem.name: _notes(problem, epochs or problem.epochs) for problem in what}
    results: list[Result] = []
    ways: dict[str, Any] = {}
    tuning_key, fresh_key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(tuning_key, tuning_seeds), jax.random.split(fresh_key, seeds)
    total = len(what) * len(who) * (len(rates) * tuning_seeds + seeds)
    with Bar(total, enabled=progress, text="compiling") as bar:
        runner = _Runner(bar, folder, memory, chunk)

        def so_far() -> Race:
            return Race(tuple(results), dict(ways), settings, notes)

        for problem in what:
            begun = len(results)
            for each in who:
                results.append(_result(each, problem, rates, keys, epochs or problem.epochs, runner))
                if on_result is not None:
                    on_result(so_far())
            bar.tell(f"{problem.name}: time and memory")
            taken = costs(who, problem)
            results[begun:] = [dataclasses.replace(r, cost=c) for r, c in zip(results[begun:], taken, strict=True)]
        for name, place in places.items():
            bar.tell(f"trajectories on {name}")
            ways[name] = {each.name: way(each, place, rates) for each in who}
    return so_far()


def way(each: Entry, place: Landscape, rates: Sequence[float] | np.ndarray) -> tuple[float, np.ndarray]:
    """The trajectory of an optimizer on a landscape, at the learning rate with the lowest final value.

    Args:
        each: an entry of the race.
        place: of two dimensions.
        rates: learning rates, tried at once.

    Returns:
        (learning rate, points (`WAY_STEPS` + 1, 2)).
    """
    start = jnp.asarray(place.start, jnp.float32)

    def run(rate: Any) -> Any:
        found = train.trajectory(place, each.make(rate), start, steps=WAY_STEPS, classify=False)
        return found.x, found.values

    points, values = jax.device_get(jax.jit(jax.vmap(run))(jnp.asarray(rates, jnp.float32)))
    last = np.where(np.isfinite(values).all(axis=1), values[:, -1], np.inf)
    best = int(np.argmin(last))
    return float(rates[best]), points[best]


class _Runner(NamedTuple):
    """The progress bar, folder and memory limits shared by the sweeps of a race."""

    bar: Bar
    folder: str | Path | None
    memory: int | None
    chunk: int | None

    def sweep(self, part: str, each: Entry, problem: Problem, make: Any, rates: np.ndarray, **more: Any) -> Sweep:
        """A sweep over learning rates, counted on the race's progress bar."""
        kept = None if self.folder is None else Path(self.folder) / problem.name / _file(each.name) / part
        told, before = f"{problem.name}: {each.name}, {part}", self.bar.done
        self.bar.tell(told)

        def show(done: int, n: int) -> None:
            self.bar.to(before + done, f"{told} {done}/{n} runs" if done else "")

        return train.sweep(
            make, rates.astype(np.float32), problem.net, problem.loss, problem.train, batch_size=problem.batch_size,
            validation=problem.validation, metrics=problem.metrics, folder=kept, memory=self.memory, chunk=self.chunk,
            progress=show, **more,
        )  # fmt: skip


def _result(
    each: Entry, problem: Problem, rates: np.ndarray, keys: tuple[Any, Any], epochs: int, runner: _Runner
) -> Result:
    """Tune, choose, and run with fresh seeds."""
    steps = len(problem.train) // problem.batch_size
    tried = runner.sweep("tuning", each, problem, each.make, rates, keys=keys[0], epochs=epochs)
    tuning, losses = (_last(tried, name).reshape(len(rates), -1) for name in (problem.figure, "validation_loss"))
    # Error rates on a few hundred examples often tie: then the lower loss decides.
    rate = rates[np.lexsort((losses.mean(axis=1), tuning.mean(axis=1)))[0]]

    def probe(ts: Any, x: Any, y: Any) -> dict[str, Any]:
        found = diagnostics.noise(problem, ts, x, y, batch_size=problem.batch_size)
        return diagnostics.reading(ts, steps) | found

    fresh = runner.sweep(
        "fresh", each, problem, lambda rate: diagnostics.watched(each.make(rate), steps), np.array([rate]),
        keys=keys[1], epochs=epochs, test=problem.test, probe=probe,
    )  # fmt: skip
    final_name = problem.figure if problem.test is None else problem.figure.replace("validation_", "test_")
    return Result(
        each.name, problem.name, problem.figure, rates, tuning, float(rate), fresh.curves, _last(fresh, final_name),
        final_name, steps, problem.target,
    )  # fmt: skip


def _last(sweep: Sweep, name: str) -> np.ndarray:
    """A metric after the last epoch of each run, inf where the run diverged or the metric is NaN."""
    values = sweep.final[name] if name in sweep.final else sweep.curves[name][:, -1]
    return np.where(np.isfinite(values), values, np.inf).astype(np.float64)


def _problems(on: str | Problem | Iterable[str | Problem]) -> list[Problem]:
    """Problems from names, comma-separated or as a list, or Problems."""
    if isinstance(on, Problem):
        on = [on]
    if not isinstance(on, Iterable):
        raise TypeError(f"race: problems are names or Problems, got {on!r}.")
    named = words(on) if isinstance(on, str) else on
    found = [problems.load(each) if isinstance(each, str) else each for each in named]
    for problem in found:
        if not isinstance(problem, Problem):
            raise TypeError(f"race: a problem is a name or a Problem, as from_function makes it, got {problem!r}.")
    require_distinct("problems", [problem.name for problem in found], "digits-mlp")
    return found


def _landscape(name: str) -> Landscape:
    """A landscape of two dimensions by its name."""
    if name not in LANDSCAPES:
        raise ValueError(
            f"race: no landscape {name!r}{nearest_name(name, LANDSCAPES)}; there are: {', '.join(LANDSCAPES)}."
        )
    return LANDSCAPES[name]()


def _notes(problem: Problem, epochs: int) -> tuple[str, ...]:
    """The source of a problem, published results, and whether they are comparable."""
    published = ", ".join(f"{name} {figure}" for name, figure in problem.published.items())
    short = epochs != problem.epochs and (problem.target is not None or published)
    other = f"{count_of(epochs, 'epoch')} here: target and published results are for {problem.epochs}" if short else ""
    told = (problem.reference, f"published: {published}" if published else "", other)
    return tuple(text for text in told if text)


def _file(name: str) -> str:
    """A folder name for a name: %XX for each character but letters, digits and - _ . ="""
    return "".join(c if c.isalnum() or c in "-_.=" else f"%{ord(c):02x}" for c in name)
