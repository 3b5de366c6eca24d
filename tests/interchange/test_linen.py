"""Variables of flax's modules in our networks: equal outputs, exact round trips, and converters that are broken."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("flax", reason="flax is not installed")
import flax.linen as nn

from jaxnn import interchange, models
from jaxnn.interchange import linen_forms
from jaxnn.interchange.forms import renamed, same, transposed
from jaxnn.layers import Attention, Dense, LayerNorm, attention, conv_transpose, dense
from tests.helpers import float64
from tests.interchange.linen_cases import CASES, Case, cast, converted, inputs, outputs, predicted, variables_of

SHORT = ("dense", "CNN")
EACH = [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in CASES]

CELLS = ("RNN", "LSTM", "GRU", "bidirectional")
"""Of these, flax has carries in float32 unless the module is made for float64."""


def difference(name: str, dtype: Any) -> float:
    """The largest difference between our outputs and the module's, relative to the largest output."""
    variables, x = cast(variables_of(name), dtype), inputs(name, dtype)
    expected = outputs(name, variables, x)
    got = predicted(name, *converted(name, variables), x)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("name", EACH)
def test_outputs_are_those_of_flax(name: str) -> None:
    assert difference(name, np.float32) < 1e-6
    if name not in CELLS:
        with float64():
            assert difference(name, np.float64) < 4e-15


@pytest.mark.parametrize("name", EACH)
def test_back_in_flax_all_variables_are_exactly_the_same(name: str) -> None:
    case, variables = CASES[name], variables_of(name)
    with float64():
        names = interchange.linen_names(case.ours, variables, case.example, names=case.names)
        back = interchange.to_linen(case.ours, *converted(name, variables), names=names)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.slow
def test_layers_have_the_names_of_a_sequential_of_the_same_structure() -> None:
    net = models.serial(Dense(4), LayerNorm(eps=1e-6), models.serial(Dense(3)))
    module = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Sequential([nn.Dense(3)])])
    params, state = net.init(jax.random.key(0), (5,))
    variables = interchange.to_linen(net, params, state)
    x = np.ones((2, 5), np.float32)
    expected = module.init(jax.random.key(0), x)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    np.testing.assert_allclose(module.apply(variables, x), net.predict(params, state, x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_variables_that_jax_has_sorted_are_matched_by_their_numbers() -> None:
    """Dense_10 comes before Dense_2; where names do not tell, the order must be passed."""
    net = models.serial(*[Dense(3)] * 12)
    of = {f"Dense_{i}": {"kernel": np.full((3, 3), i / 8), "bias": np.full(3, i / 8)} for i in range(12)}
    params, _ = interchange.from_linen(net, {"params": jax.tree.map(np.asarray, of)}, (3,))
    assert [float(8 * p["b"][0]) for p in params] == list(range(12))
    case, variables = CASES["transformer"], variables_of("transformer")
    assert list(variables["params"]) != sorted(variables["params"])
    by_order = interchange.linen_names(case.ours, variables, case.example)
    moved = jax.tree.map(np.asarray, variables)
    with pytest.raises(ValueError, match=r"'Block_1/LayerNorm_1' and 'LayerNorm_0' have the same shapes.*names="):
        interchange.linen_names(case.ours, moved, case.example)
    assert by_order == interchange.linen_names(case.ours, moved, case.example, names={"4": "LayerNorm_0"})


MUTANTS = {
    "a dense weight transposed": ("square", dense.KIND, renamed(w=transposed("kernel"), b=same("bias"))),
    "a kernel not reversed": ("transposed 1-D", conv_transpose.KIND, renamed(w=same("kernel"), b=same("bias"))),
    "heads last": (
        "attention",
        attention.KIND,
        linen_forms.ATTENTION._replace(
            read=lambda layer, theirs: linen_forms.ATTENTION.read(
                layer, theirs | {"query/kernel": np.swapaxes(theirs["query/kernel"], 1, 2)}
            )
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_converter_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, kind, broken = MUTANTS[name]
    if case == "square":
        monkeypatch.setitem(CASES, case, Case(Dense(3), nn.Dense(3), (3,)))
    assert difference(case, np.float32) < 1e-6
    monkeypatch.setitem(linen_forms.FORMS, kind, broken)
    assert difference(case, np.float32) > 1e-2


def test_what_flax_has_otherwise_is_refused() -> None:
    net = Attention(2, qk_norm=True)
    with pytest.raises(ValueError, match=r"to_linen: layer the network \(attention\): flax normalizes.*qk_norm=False"):
        interchange.to_linen(net, *net.init(jax.random.key(0), (5, 8)))
    with pytest.raises(ValueError, match=r'from_linen: variables must be a dict with "params".*got \[\'Dense_0\'\]'):
        interchange.from_linen(Dense(2), {"Dense_0": {}}, (3,))
    of = {"params": {"kernel": np.ones((3, 2), np.int32), "bias": np.ones(2)}}
    with pytest.raises(TypeError, match=r"from_linen: 'kernel' of layer .* must have a floating dtype, got int32"):
        interchange.from_linen(Dense(2), of, (3,))
