"""Broken recorders. Each is caught by the comparison with vmap(grad) that the right one passes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn.ops import views
from jaxnn.per_example.recording import inner, reading, rules, viewing
from jaxnn.per_example.recording.concatenating import Concatenated
from jaxnn.tape import Addition, Convolution, Lookup, Placed, Product, Scaling, Whole
from tests.backprop.mutants import Mutant
from tests.helpers import float64
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import N, make
from tests.per_example.recording.test_statistics import gaps

Patch = pytest.MonkeyPatch


@functools.cache
def of(loss: str) -> Callable[[], float]:
    """How far norms and gradients of a loss are from vmap(grad)'s; infinitely where nothing comes out."""

    def check() -> float:
        with float64():
            try:
                found = gaps(make(loss, 2 * N), ["sq_norms", "materialize"])
            except (TypeError, ValueError, AssertionError, IndexError, ZeroDivisionError, np.exceptions.AxisError):
                return float("inf")
            return max(gap if np.isfinite(gap) else float("inf") for gap in found.values())

    return check


def with_rule(name: str, **parts: Callable[..., Any]) -> Callable[[Patch], None]:
    """Parts of one rule replaced, each by broken(the right one, its arguments)."""

    def breaks(patch: Patch) -> None:
        right = rules.OP_RULES[name]
        broken = {part: functools.partial(f, getattr(right, part)) for part, f in parts.items()}
        patch.setitem(rules.OP_RULES, name, right._replace(**broken))

    return breaks


def changed(kind: type, **change: Callable[[Any], Any]) -> Callable[..., Any]:
    """A rule's use with fields of one kind of use changed."""

    def use(right: Callable[..., Any], *args: Any) -> Any:
        found = right(*args)
        bare = found.use if isinstance(found, Placed) else found
        if not isinstance(bare, kind):
            return found
        bare = dataclasses.replace(bare, **{name: f(getattr(bare, name)) for name, f in change.items()})
        return dataclasses.replace(found, use=bare) if isinstance(found, Placed) else bare

    return use


def method(cls: type, name: str, f: Callable[..., Any]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(cls, name, f)


def without_view(right: Callable[..., Any], *args: Any) -> Any:
    found = right(*args)
    return found.use if isinstance(found, Placed) else found


def unscaled(patch: Patch) -> None:
    viewed = reading.viewed

    def broken(equation: Any, param: Any) -> Any:
        found = viewed(equation, param)
        return None if found is None else [p._replace(scale=1.0) for p in found]

    patch.setattr(reading, "viewed", broken)


def loops_unlike(change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """Loops entered with other settings."""

    def breaks(patch: Patch) -> None:
        body_of = inner.body_of

        def broken(equation: Any) -> Any:
            return None if (body := body_of(equation)) is None else change(body)

        patch.setattr(reading, "body_of", broken)

    return breaks


def _all_shared(body: Any) -> Any:
    def entered(i: int, param: Any) -> Any:
        found = body.entered(i, param)
        return found if found is None or not body.loop else found._replace(stacked=(*param.stacked, False))

    return dataclasses.replace(body, entered=entered)


def _no_fallback(patch: Patch) -> None:
    patch.setattr("jaxnn.per_example.recording.tapping.Whole", lambda grads, why: Whole(0 * grads, why))


def _rows_first(patch: Patch) -> None:
    patch.setattr(viewing, "_order", lambda param, _: views.Transpose(tuple(range(len(param.view.shape)))))


def _ones(right: Callable[..., Any], equation: Any, at: int, operands: Any) -> Any:
    return jnp.ones_like(right(equation, at, operands))


def _at_other_side(right: Callable[..., Any], equation: Any, at: int, param: Any, seen: Any, delta: Any) -> Any:
    return right(equation, 0, param, seen, delta)


def _unclipped(right: Callable[..., Any], equation: Any, at: int, operands: Any) -> Any:
    found = right(equation, at, operands)
    clips = equation.params["mode"] == lax.GatherScatterMode.CLIP
    return operands[1].reshape(-1, operands[1].shape[-1])[:, 0] if clips else found


def _wrapped(right: Callable[..., Any], equation: Any, at: int, operands: Any) -> Any:
    return right(equation, at, operands) % operands[0].shape[0]


def _first(x: Any) -> Any:
    return x[:, :1]


DOT, CONV = "dot_general", "conv_general_dilated"


def mutant(name: str, breaks: Callable[[Patch], None], loss: str) -> Mutant:
    return Mutant(name, of(loss), breaks, EXACT)


MUTANTS = [
    mutant("difference without its sign", with_rule("sub", use=_at_other_side), "views"),
    mutant("numbers on the way forgotten", unscaled, "views"),
    mutant("views forgotten", with_rule(DOT, use=without_view), "views"),
    mutant("reversal forgotten", method(views.Reverse, "__call__", lambda self, x: x), "views"),
    mutant("column by column as if row by row", _rows_first, "columns"),
    mutant("overlapping slices as if apart", method(views.View, "apart_from", lambda *_: True), "views"),
    mutant("broadcast before a reshape", method(views.View, "repeats", property(lambda _: False)), "views"),
    mutant("bias at the first position only", with_rule("add", use=changed(Addition, delta=_first)), "rnn"),
    mutant("scale at one position", with_rule("mul", use=changed(Scaling, a=_first, delta=_first)), "attention"),
    mutant("derivative of a maximum", with_rule("max", seen=_ones), "pointwise"),
    mutant("derivative of a quotient", with_rule("div", seen=_ones), "pointwise"),
    mutant("derivative of a power", with_rule("pow", seen=_ones), "pointwise"),
    mutant("derivative of a choice", with_rule("select_n", seen=_ones), "pointwise"),
    mutant("inputs in another order", with_rule(DOT, use=changed(Product, a=lambda a: a[..., ::-1])), "mlp"),
    mutant("one moment of a loop", with_rule(DOT, use=changed(Product, a=_first, delta=_first)), "rnn"),
    mutant("convolution without its groups", with_rule(CONV, use=changed(Convolution, groups=lambda _: 1)), "cnn"),
    mutant("convolution without its dilation",
           with_rule(CONV, use=changed(Convolution, dilation=lambda d: (1,) * len(d))), "cnn"),
    mutant("convolution without its stride",
           with_rule(CONV, use=changed(Convolution, stride=lambda d: (1,) * len(d))), "cnn"),
    mutant("convolution with its padding turned",
           with_rule(CONV, use=changed(Convolution, padding=lambda p: tuple(x[::-1] for x in p))), "cnn"),
    mutant("kernel in its own layout", with_rule(CONV, use=without_view), "cnn"),
    mutant("stacked parameters as if shared", loops_unlike(_all_shared), "scanned_blocks"),
    mutant("places beyond the edge not moved inside", with_rule("gather", seen=_unclipped), "lookups"),
    mutant("places outside the table wrapped", with_rule("gather", seen=_wrapped), "lookups"),
    mutant("rows one further", with_rule("gather", use=changed(Lookup, indices=lambda i: i + 1)), "lookups"),
    mutant(
        "all parts of what is concatenated are the first",
        method(Concatenated, "ends", property(lambda self: [(p, 0, p.shape[self.axis]) for p in self.parts])),
        "joined",
    ),
    mutant("what falls back forgotten", _no_fallback, "fallbacks"),
]  # fmt: skip
