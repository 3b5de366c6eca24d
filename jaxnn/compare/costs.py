"""The cost of a training step with each optimizer: seconds, compile seconds, bytes."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import train
from jaxnn.checks import require_positive_int
from jaxnn.compare.entries import Entry
from jaxnn.compare.problems import Problem
from jaxnn.train.pieces import scan_epoch

STEPS = 20
"""The largest number of steps timed together, as one scan."""

AT_LEAST = 0.05
"""About the seconds that each measurement lasts: clock resolution and short disturbances then hardly count."""


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The cost of one training step of a single run, not vmapped.

    Attributes:
        step_seconds: of forward pass, backward pass and update: the median over interleaved rounds.
        compile_seconds: to trace, lower and compile a scan of steps.
        state_bytes: of the optimizer's state.
        temporary_bytes: of the compiled scan besides its arguments and results; 0 if the platform does not report it.
    """

    step_seconds: float
    compile_seconds: float
    state_bytes: int
    temporary_bytes: int


def costs(
    entries: Sequence[Entry], problem: Problem, *, learning_rate: float = 1e-6, rounds: int = 5
) -> list[StepCost]:
    """Time and memory of a training step on a problem with each of several optimizers, measured alternately.

    Args:
        entries: the optimizers, as returned by `entries.entries`.
        problem: its network, loss, training set and batch size are used.
        learning_rate: small, so that nothing diverges during the measurement.
        rounds: measurements of each optimizer; their median is reported.

    Returns:
        A StepCost per entry, in their order. Times are of blocked calls, after warm-up.

    Example:
        >>> from jaxnn.compare import problems
        >>> from jaxnn.compare.entries import entries
        >>> [cost] = costs(entries("adam"), problems.load("quadratic"), rounds=1)
        >>> cost.state_bytes  # two moments of 100 float32 numbers, and the count
        804
    """
    rounds = require_positive_int("costs", "rounds", rounds)
    steps = min(STEPS, len(problem.train) // problem.batch_size)
    x, y = (jnp.asarray(part[: steps * problem.batch_size]) for part in (problem.train.x, problem.train.y))
    vg = jax.value_and_grad(train.mean_loss(problem.net, problem.loss), has_aux=True)
    programs, states, found = [], [], []
    for each in entries:
        opt = each.make(jnp.float32(learning_rate))
        ts = train.init(problem.net, opt, jax.random.key(0), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        began = time.perf_counter()
        epoch = jax.jit(scan_epoch(vg, opt, batch_size=problem.batch_size), donate_argnums=0)
        compiled = epoch.lower(ts, x, y, jax.random.key(1)).compile()
        seconds = time.perf_counter() - began
        found.append((seconds, _bytes(ts.opt_state), _temporaries(compiled)))
        programs.append(compiled)
        states.append(ts)
    times: list[list[float]] = [[] for _ in entries]
    calls = [1] * len(entries)
    for turn in range(rounds + 1):
        for i, program in enumerate(programs):
            began = time.perf_counter()
            for _ in range(calls[i]):
                states[i], _ = jax.block_until_ready(program(states[i], x, y, jax.random.key(turn)))
            taken = (time.perf_counter() - began) / calls[i]
            times[i].append(taken / steps)
            if turn == 0:
                calls[i] = max(1, int(AT_LEAST / taken))
    return [StepCost(statistics.median(taken[1:]), *known) for taken, known in zip(times, found, strict=True)]


def _bytes(state: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def _temporaries(compiled: Any) -> int:
    analysis = compiled.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)
