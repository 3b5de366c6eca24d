"""Statistics inside the backward pass, and clipped sums in its memory: programs for accelerators (device_registry.py).

`small gpt` is what the tests compile of a model in bfloat16 with scanned, rematerialized blocks; `gpt` has the size of
GPT-2 small. The first rival is `jax.value_and_grad`: a streamed pass returns the losses as well. `jax.grad` alone of
`gpt untied` takes 1.8 GiB of temporaries on the v5e, `value_and_grad` 3.8: the losses need the logits in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.device_networks import BOUND, MLP, SMALL, Model, gpt, own, small_transformer
from benchmarks.device_registry import TARGETS, Case, program
from jaxnn import per_example

STREAMED: dict[str, Callable[..., Any]] = {
    "norms and gradient, streamed": per_example.value_and_grad,
    "clipped sum, two passes": lambda loss, **options: per_example.clipped_value_and_grad(loss, BOUND, **options),
    "clipped sum by parameter, one pass": lambda loss, **options: per_example.clipped_value_and_grad(
        loss, BOUND, groups="parameter", **options
    ),
    "second moment and gradient, streamed": lambda loss, **options: per_example.value_and_grad(
        loss, per_example.SecondMoment(), **options
    ),
}
"""Each a transformation of the loss of one example."""


def add_streams(name: str, model: Callable[[], Model], quick: Sequence[str] = (), value: bool = True) -> None:
    """The programs `NAME STATISTIC` of `STREAMED` of a model, and `NAME gradient by jax.value_and_grad`, their rival.

    Args:
        quick: those that the tests compile too, with the rival.
        value: False where `NAME gradient by jax.grad` has the losses already.
    """
    model = functools.cache(model)
    plain, with_value = f"{name} gradient by jax.grad", f"{name} gradient by jax.value_and_grad"
    for which, transformed in STREAMED.items():

        def ours(transformed: Callable[..., Any] = transformed) -> Case:
            made = model()
            return Case(transformed(made.one, in_axes=made.in_axes), made.args)

        rivals = (with_value, plain) if value else (plain,)
        program(f"{name} {which}", rivals=rivals, quick=TARGETS if which in quick else ())(ours)
    if value:
        program(with_value, quick=TARGETS if quick else ())(lambda: Case(model().with_value, model().args))


NORMS = "norms and gradient, streamed"
add_streams("mlp", lambda: own(MLP, (784,), 128), tuple(STREAMED), value=False)
add_streams("transformer", small_transformer)
add_streams("block in bfloat16", lambda: gpt(8, **SMALL, layers=1, scanned=False))
for _kind, _tied in {"untied": False, "tied": True}.items():
    _few = () if _tied else (NORMS, "clipped sum by parameter, one pass")
    add_streams(f"small gpt {_kind}", functools.partial(gpt, 8, **SMALL, layers=3, tied=_tied), _few)
    add_streams(f"gpt {_kind}", functools.partial(gpt, 16, tied=_tied))
