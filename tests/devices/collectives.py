"""What the devices of a compiled program send each other, array by array, as before XLA combined collectives."""

from __future__ import annotations

import collections

from tests.devices import hlo_loops, hlo_text
from tests.devices.hlo_cost import COLLECTIVES

Sent = collections.Counter[tuple[str, tuple[int, ...], int]]
"""How often, loops times their trips, by the kind of collective, the sizes of the array's axes, and its bytes."""


def sent(text: str) -> Sent:
    """The arrays of `compiled.as_text()`. Axes are sorted and those of size 1 left out: a gradient may be transposed.

    On TPU the parts of one collective are in several kernels, beside which it runs: they share a channel.

    Raises:
        ValueError: a collective in a loop of unknown trip count.
    """
    module = hlo_text.parse(text)
    return _of(module, module.entry, set())


def _of(module: hlo_text.Module, computation: hlo_text.Computation, channels: set[str]) -> Sent:
    found: Sent = collections.Counter()
    for i in computation:
        kind = i.opcode.removesuffix("-start")
        times, inner = 1, [name for name in (i.called, *i.branches) if name in module]
        channel = i.attribute("channel_id")
        if kind in COLLECTIVES and channel not in channels:
            channels |= {channel} if channel else set()
            # An asynchronous gather has its operands among its shapes.
            shapes = i.shapes[len(i.operands) :] if i.opcode == "all-gather-start" else i.shapes
            found.update((kind, tuple(sorted(n for n in s.dims if n > 1)), s.bytes) for s in shapes)
        if i.opcode == "while":
            trips, inner = hlo_loops.trip_count(module, computation, i), [i.attribute("body") or ""]
            times = trips or 1
            if trips is None and _of(module, module[inner[0]], set()):
                raise ValueError(f"expected a known trip count of the loop {i.where}, which has collectives")
        for name in inner:
            for array, count in _of(module, module[name], channels).items():
                found[array] += count * times
    return found
