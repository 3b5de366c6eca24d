"""`opt.update(updates=..., state=..., params=...)`: every update takes its first arguments by optax's names."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from tests.optim.meta import RATE, table

CASES = all_cases()
NAMES = ["updates", "state", "params"]


def optimizers() -> dict[str, Any]:
    """Every optimizer: those that are compared with optax, in all their settings, and the rest."""
    found = {f"case {name}": case.ours(optim) for name, case in CASES.items()}
    found |= {name: make(RATE) for name, make in table().items()}
    found["MultiSteps"] = optim.MultiSteps(optim.sgd(RATE), 2)
    found["sam: opaque"] = optim.sam(optim.sgd(RATE), optim.sgd(RATE), opaque_mode=True)
    return found


def test_every_update_has_optaxs_argument_names() -> None:
    """In this order, so that a call by name binds the same values as one by position."""
    found = optimizers()
    assert len(found) >= 200
    wrong = {
        name: names
        for name, opt in found.items()
        if (names := list(inspect.signature(opt.update).parameters)[:3]) != NAMES
    }
    assert not wrong


def test_a_call_by_name_is_a_call_by_position() -> None:
    """Of a rule of each kind: element-wise, one whose result has the name of the argument, wrappers, chains, masks."""
    opts = {
        "adam": optim.adam(0.1),
        "adafactor": optim.adafactor(0.1, min_dim_size_to_factor=2),
        "muon": optim.muon(0.1),
        "dog": optim.dog(),
        "sm3": optim.sm3(0.1),
        "chain": optim.chain(optim.zero_nans(), optim.clip(0.1), optim.sgd(0.1, 0.9)),
        "masked": optim.masked(optim.scale(2.0), {"w": True, "b": False}),
        "partition": optim.partition({"a": optim.sgd(0.1), "b": optim.adam(0.1)}, {"w": "a", "b": "b"}),
        "MultiSteps": optim.MultiSteps(optim.sgd(0.1), 2),
    }
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}
    for name, opt in opts.items():
        given = params, jax.eval_shape(opt.init, params), params
        by_name = jax.make_jaxpr(lambda g, s, p, opt=opt: opt.update(updates=g, state=s, params=p))(*given)
        assert str(by_name) == str(jax.make_jaxpr(opt.update)(*given)), name


def test_the_old_name_is_no_argument() -> None:
    with pytest.raises(TypeError, match="updates"):
        optim.sgd(0.1).update(grads=np.ones(1), state=())
