"""The way and cost of each parameter in a streamed backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.per_example import blocks
from jaxnn.per_example.forms import MATERIALISE, Form, Pieces
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.plan import Plan, Row, cost_of, kind_of, positions_of
from jaxnn.per_example.streaming.dense import CPU_ENTRY, OTHER_ENTRY, TPU_ENTRY, pays
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.tape import Placed, Unplaced
from jaxnn.types import Array

ENTRIES = {"cpu": CPU_ENTRY, "tpu": TPU_ENTRY}


class Seen(NamedTuple):
    """What the rule of one use sees: its uses and form, N, the entries of the slice, and whether all are on a tape."""

    uses: tuple[Unplaced, ...]
    form: Form
    examples: int
    size: int
    taped: bool


class _Spy(Statistic):
    """Notes what it is asked for, {path: {number of the operation: what it sees}}, and computes nothing."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[int, Seen]] = {}
        self.params: tuple[Parameter, ...] = ()

    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part:
        self.params = params
        return Part(param.path, shared=jnp.int32(params.index(param)))

    def of_use(self, gradients: Gradients, part: Part) -> Array:
        operation, number = gradients.number
        plain = tuple(use.use if isinstance(use, Placed) else use for use in gradients.uses)
        found = Seen(
            plain, gradients.form, gradients.examples, math.prod(gradients.leaf.shape), isinstance(number, int)
        )
        self.seen.setdefault(str(part.slot), {})[operation] = found
        return jnp.zeros(gradients.examples)

    def combine(self, found: Any, batch: Batch) -> Any:
        return ()


def plan_of(run: Callable[..., Any], args: tuple[Any, ...]) -> Plan:
    """The plan of `run(statistic)(*args)`, for norms, on the default backend; from shapes alone."""
    spy = _Spy()
    jax.eval_shape(run(spy), *args)
    found = Plan(_row(param, spy.seen.get(param.path, {})) for param in spy.params)
    found.way = "cost of the norms, beside the gradient"
    return found


def _row(param: Parameter, seen: dict[int, Seen]) -> Row:
    if not seen:
        return Row(param.path, param.shape, "none", 0, "not used", 0, 0)
    kinds, ways, flops, held, times = [], [], 0, 0, 0
    for found in seen.values():
        way, operations, most = _cost(found)
        ways.append(way)
        # A loop over slices, or chunks, has one use, with as many iterations as these.
        flops += max(-(-math.prod(param.shape) // max(found.size, 1)), 1) * operations
        held = max(held, most)
        kinds += [kind_of(use) for use in found.uses]
        times += sum(map(positions_of, found.uses))
    return Row(param.path, param.shape, ", ".join(kinds), times, ", ".join(dict.fromkeys(ways)), flops, held)


def _cost(seen: Seen) -> tuple[str, int, int]:
    """(way, operations, bytes) of one use, or of all uses on a tape."""
    form, n = seen.form, seen.examples
    if not seen.taped and isinstance(form, Outer) and pays(form, ENTRIES.get(jax.default_backend(), OTHER_ENTRY)):
        groups, d, p = form.block
        held = min(n, max(blocks.CHUNK_BYTES // form.gradient_bytes, 1)) * form.gradient_bytes
        return f"streamed: {MATERIALISE}", 2 * n * groups * d * p, held
    if isinstance(form, Pieces):
        entries = [math.prod(view.shape) for view in form.views]
        costs = [cost_of(part, list(seen.uses), n, size) for part, size in zip(form.parts, entries, strict=True)]
    else:
        costs = [cost_of(form, list(seen.uses), n, seen.size)]
    ways = ", ".join(dict.fromkeys(way for way, _, _ in costs))
    if ways.startswith("as given"):
        kept = "materialized" + ways.removeprefix("as given")
    else:
        kept = f"taped: {ways}" if seen.taped else f"streamed: {ways}"
    return kept, sum(flops for _, flops, _ in costs), max(held for _, _, held in costs)
