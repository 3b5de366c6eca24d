"""The public checks against finite differences: they pass every right rule and catch every broken one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop
from jaxnn.train import mean_loss
from tests.backprop.checking import drawn, rule_error
from tests.backprop.mutants import MUTANTS, QUICK, Mutant
from tests.helpers import float64


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def checks_of(mutant: Mutant, dtype: Any) -> list[Any]:
    """The public checks of what a mutant breaks: of a layer's rule, or of the gradient of a training loss."""
    check = mutant.check
    assert isinstance(check, functools.partial)
    settings = dict(check.keywords)
    if check.func is rule_error:
        layer, x = check.args
        settings.setdefault("key", jax.random.key(3))
        return [backprop.check_rule(layer, cast(x, dtype), **settings)]
    net, loss, x, y = check.args
    params, state = cast(drawn(net, x), dtype)
    x, y, call = cast((x, y, settings.pop("call", {})), dtype)
    regularizer = settings.pop("regularizer", None)
    own, whole = backprop.value_and_grad(net, loss, regularizer, **settings), mean_loss(net, loss, regularizer)
    grads = own(params, state, x, y, **call)[1]
    return [
        backprop.check_gradient(lambda p: whole(p, state, x, y, **call)[0], params, grads),
        backprop.check_rule(net, x, key=jax.random.key(3)),
    ]


def outcomes(mutants: list[Mutant], dtype: Any) -> dict[str, tuple[list[Any], list[Any]]]:
    """Of each mutant the checks of the right rule and of the broken one, all in one program."""

    def both() -> Any:
        found = {}
        for mutant in mutants:
            right = checks_of(mutant, dtype)
            with pytest.MonkeyPatch.context() as patch:
                mutant.breaks(patch)
                found[mutant.name] = right, checks_of(mutant, dtype)
        return found

    with float64():
        return jax.jit(both)()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_quick(dtype: Any) -> None:
    judge([m for m in MUTANTS if m.name in QUICK], dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all(dtype: Any) -> None:
    judge(MUTANTS, dtype)


def judge(mutants: list[Mutant], dtype: Any) -> None:
    for name, (right, broken) in outcomes(mutants, dtype).items():
        assert all(check.passed for check in right), f"{name}\n{right}"
        assert not all(check.passed for check in broken), f"{name}\n{broken}"
