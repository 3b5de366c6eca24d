"""Convolution and its adjoints, over strides, paddings, dilations, groups and one to three spatial axes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import conv as ops
from tests.helpers import assert_close, float64, random, slow, strict
from tests.ops import oracles


class Case(NamedTuple):
    sizes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Any
    groups: int
    c_in: int
    c_out: int

    @property
    def settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation, "padding": self.padding, "groups": self.groups}


CASES = [
    Case((7,), (3,), (2,), (1,), "VALID", 1, 2, 3),
    Case((8, 6), (3, 2), (2, 3), (1, 2), "SAME", 1, 2, 3),
    Case((6, 6), (3, 3), (1, 1), (1, 1), "SAME", 4, 4, 8),  # depthwise, two outputs for each input
    Case((7, 5), (2, 3), (3, 1), (2, 1), ((1, 0), (2, 3)), 2, 4, 6),
    Case((4, 5, 3), (2, 3, 2), (1, 2, 1), (1, 1, 1), "SAME", 1, 2, 3),
]


@st.composite
def cases(draw) -> Case:
    dims = draw(st.sampled_from([1, 2]))
    per_axis = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(dims))  # noqa: E731
    window, stride, dilation = per_axis(1, 2, 3), per_axis(1, 2, 3), per_axis(1, 2)
    groups = draw(st.sampled_from([1, 2, 4]))
    pairs = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(dims))
    padding = draw(st.sampled_from(["VALID", "SAME", pairs]))
    return Case(per_axis(5, 6, 8), window, stride, dilation, padding, groups, 4, draw(st.sampled_from([4, 8])))


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, w, the expected y, and an error."""
    x, w = random(0, 2, *case.sizes, case.c_in), random(1, *case.window, case.c_in // case.groups, case.c_out)
    y = oracles.conv(x, w, **case.settings)
    return x, w, y, random(2, *y.shape)


def check_adjoints(case: Case, y: Any, dx: Any, dw: Any) -> None:
    """y itself, and <A x, dy> = <x, A' dy> = <w, A'_w dy>, against NumPy's forward."""
    x, w, expected, dy = arrays(case)
    assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    np.testing.assert_allclose(np.vdot(x, dx), np.vdot(expected, dy), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.vdot(w, dw), np.vdot(expected, dy), rtol=1e-11, atol=1e-11)


def with_adjoints(case: Case, x: Any, w: Any, dy: Any) -> tuple[Any, Any, Any]:
    dx = ops.conv_input_grad(w, dy, case.sizes, **case.settings)
    return ops.conv(x, w, **case.settings), dx, ops.conv_weight_grad(x, dy, case.window, **case.settings)


@functools.cache
def found() -> list[tuple[Any, Any]]:
    """(y, dx, dw) by our rules, and (dx, dw) by autodiff, of the chosen geometries: one program."""

    def both(case: Case, x: Any, w: Any, dy: Any) -> tuple[Any, Any]:
        _, vjp = jax.vjp(lambda x, w: ops.conv(x, w, **case.settings), x, w)
        return with_adjoints(case, x, w, dy), vjp(dy)

    given = [(x, w, dy) for x, w, _, dy in map(arrays, CASES)]
    with float64(), strict():
        return jax.jit(lambda given: [both(case, *one) for case, one in zip(CASES, given, strict=True)])(given)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_equation_inner_products_and_autodiff(index):
    ours, automatic = found()[index]
    check_adjoints(CASES[index], *ours)
    assert_close(ours[1:], automatic, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@hypothesis.given(cases())
@hypothesis.settings(max_examples=10)
def test_any_geometry(case):
    x, w, _, dy = arrays(case)
    with float64(), strict():
        check_adjoints(case, *jax.jit(functools.partial(with_adjoints, case))(x, w, dy))


@pytest.mark.parametrize("index", [i for i, case in enumerate(CASES) if not isinstance(case.padding, tuple)])
def test_torch_agrees(index):
    torch = pytest.importorskip("torch")
    case = CASES[index]
    x, w, y, _ = arrays(case)
    pads = oracles.pads_of(case.padding, case.sizes, case.window, case.stride, case.dilation)
    padded = torch.tensor(np.pad(np.moveaxis(x, -1, 1), [(0, 0), (0, 0), *pads]))
    kernel = torch.tensor(np.ascontiguousarray(np.moveaxis(w, (-1, -2), (0, 1))))
    forward = getattr(torch.nn.functional, f"conv{len(case.sizes)}d")
    theirs = forward(padded, kernel, stride=case.stride, dilation=case.dilation, groups=case.groups)
    assert_close(np.moveaxis(theirs.numpy(), 1, -1), y, rtol=1e-12, atol=1e-12)
    assert_close(found()[index][0][0], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index", [1, *slow(2)])
def test_flax_agrees(index):
    linen = pytest.importorskip("flax.linen")
    case = CASES[index]
    x, w, _, _ = arrays(case)
    layer = linen.Conv(
        case.c_out,
        case.window,
        strides=case.stride,
        kernel_dilation=case.dilation,
        padding=case.padding,
        feature_group_count=case.groups,
        use_bias=False,
    )
    with float64():
        theirs = jax.jit(layer.apply)({"params": {"kernel": w}}, x)
    assert_close(found()[index][0][0], theirs, rtol=1e-12, atol=1e-12)


SQUARE = Case((6, 6), (3, 3), (1, 1), (1, 1), "SAME", 1, 3, 3)


def broken(name: str, y: Any, dx: Any, dw: Any) -> tuple[Any, Any, Any]:
    """The adjoints of a square kernel by a broken rule."""
    _, w, _, dy = arrays(SQUARE)
    if name == "unflipped kernel":
        dx = ops.conv_input_grad(jnp.flip(w, (0, 1)), dy, SQUARE.sizes, **SQUARE.settings)
    if name == "transposed kernel":
        dx = ops.conv_input_grad(jnp.swapaxes(w, -1, -2), dy, SQUARE.sizes, **SQUARE.settings)
    return y, dx, jnp.flip(dw, (0, 1)) if name == "flipped weight gradient" else dw


def test_broken_adjoints_are_caught():
    x, w, _, dy = arrays(SQUARE)
    names = ("none", "unflipped kernel", "transposed kernel", "flipped weight gradient")

    @jax.jit
    def every(x, w, dy):
        right = with_adjoints(SQUARE, x, w, dy)
        return {name: broken(name, *right) for name in names}

    with float64():
        results = every(x, w, dy)
    check_adjoints(SQUARE, *results["none"])
    for name in names[1:]:
        with pytest.raises(AssertionError):
            check_adjoints(SQUARE, *results[name])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_storage_dtypes(dtype):
    """The float64 value of the same stored numbers, to the storage dtype's rounding."""
    x, w, _, dy = arrays(SQUARE)
    x, w, dy = (jnp.asarray(a, dtype) for a in (x, w, dy))
    wide = [np.asarray(a, np.float64) for a in (x, w)]
    got = ops.conv(x, w, **SQUARE.settings)
    assert got.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    assert_close(got, oracles.conv(*wide, **SQUARE.settings), rtol=eps, atol=1e-5)
    dw = ops.conv_weight_grad(x, dy, SQUARE.window, **SQUARE.settings)
    assert dw.dtype == jnp.float32
    with float64():
        exact = ops.conv_weight_grad(*(a.astype(jnp.float64) for a in (x, dy)), SQUARE.window, **SQUARE.settings)
    assert_close(dw, exact, rtol=1e-5, atol=1e-5)
    assert ops.conv_input_grad(w, dy, SQUARE.sizes, **SQUARE.settings).dtype == dtype


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"padding": "FULL"}, 'must be "SAME", "VALID" or a (low, high) pair'),
        ({"padding": ((1, 1),)}, "for each of 2 spatial axes"),
        ({"padding": ((1, 1), (-1, 0))}, "padding must be at least 0, got -1"),
        ({"stride": (1, 2, 3)}, "stride must be an int or 2 ints, got (1, 2, 3)"),
        ({"dilation": 3}, "a window that spans 7 does not fit an axis of size 6"),
    ],
)
def test_messages(settings, text):
    with pytest.raises(ValueError, match="conv: ") as caught:
        ops.conv(np.zeros((1, 6, 6, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32), **settings)
    assert text in str(caught.value)
