"""The kinds of uses: their gradients against NumPy, example by example; the tape and the columns as pytrees."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.tape import (
    Addition,
    Columns,
    Convolution,
    Lookup,
    Product,
    Scaling,
    SoftmaxProduct,
    Tape,
    Whole,
    counted,
    error_of,
    errors,
    positions,
    total,
    weighted,
    whole,
    wide_total,
)
from tests.backprop.checking import compiled_quickly  # noqa: F401
from tests.helpers import assert_close, float64, random, strict

N, T, D, P = 4, 3, 5, 2
A, DELTA, SAME_SIZE = random(0, N, T, D), random(1, N, T, P), random(2, N, T, D)
IMAGES, ERRORS = random(3, N, 5, 4, 2), random(4, N, 3, 3, 4)
INDICES = np.array([[0, 1, 1], [5, 2, 0], [-1, 3, 3], [0, 0, 0]])  # 5 and -1 are no rows of five
WEIGHTS = np.array([0.5, 0.0, -2.0, 1.0])
USES: dict[str, Any] = {
    "product": (Product, (A, DELTA), {}),
    "convolution": (
        Convolution,
        (IMAGES, ERRORS),
        {"window": [2, 2], "stride": 2, "padding": [(1, 1), [1, 1]], "groups": 2},
    ),
    "addition": (Addition, (SAME_SIZE,), {}),
    "scaling": (Scaling, (A, SAME_SIZE), {}),
    "lookup": (Lookup, (INDICES, DELTA), {"rows": 5}),
    "whole": (Whole, (random(5, N, 2, 3),), {}),
}  # fmt: skip


def use_of(kind: str, dtype: Any = None) -> Any:
    make, arrays, settings = USES[kind]
    return make(*(x if x is INDICES or dtype is None else x.astype(dtype) for x in arrays), **settings)


def table(indices: np.ndarray, delta: np.ndarray) -> np.ndarray:
    rows = np.zeros((5, P))
    for index, d in zip(indices, delta, strict=True):
        if 0 <= index < 5:
            rows[index] += d
    return rows


def correlated(x: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Window 2 by 2, stride 2, one row of zeros on each side, two groups of one channel in and two out."""
    x, grad = np.pad(x, ((1, 1), (1, 1), (0, 0))), np.zeros((2, 2, 1, 4))
    for i, j, k, m, c in np.ndindex(3, 3, 2, 2, 4):
        grad[k, m, 0, c] += x[2 * i + k, 2 * j + m, c // 2] * delta[i, j, c]
    return grad


GRADIENTS = {  # of each example, from the equations
    "product": np.einsum("ntd,ntp->ndp", A, DELTA),
    "convolution": np.stack([correlated(x, delta) for x, delta in zip(IMAGES, ERRORS, strict=True)]),
    "addition": SAME_SIZE.sum(1),
    "scaling": (A * SAME_SIZE).sum(1),
    "lookup": np.stack([table(i, d) for i, d in zip(INDICES, DELTA, strict=True)]),
    "whole": USES["whole"][1][0],
}


def test_gradients_of_every_kind_with_weights_and_without() -> None:
    with float64():
        uses = {kind: use_of(kind) for kind in USES}
        with strict():
            found = jax.jit(lambda uses, w: {k: (u.grad(), u.grad(w)) for k, u in uses.items()})(uses, WEIGHTS)
        for kind, (plain, with_weights) in found.items():
            assert uses[kind].shape == GRADIENTS[kind].shape[1:], kind
            np.testing.assert_allclose(plain, GRADIENTS[kind].sum(0), rtol=1e-12, atol=1e-13, err_msg=kind)
            expected = np.einsum("n,n...->...", WEIGHTS, GRADIENTS[kind])
            np.testing.assert_allclose(with_weights, expected, rtol=1e-12, atol=1e-13, err_msg=kind)


def test_the_check_finds_squared_weights_and_a_shifted_window() -> None:
    convolution, w = GRADIENTS["convolution"], WEIGHTS
    use = use_of("convolution")
    moved = dataclasses.replace(use, padding=((0, 2), (1, 1)))
    with float64():
        shifted, squared = jax.jit(lambda moved, use, w: (moved.grad(), use.grad(w * w)))(moved, use, w)
    assert np.abs(np.asarray(shifted) - convolution.sum(0)).max() > 0.1
    assert np.abs(np.asarray(squared) - np.einsum("n,n...->...", w, convolution)).max() > 0.1


def test_an_example_of_weight_0_adds_nothing_even_if_infinite() -> None:
    def spoilt(use: Any) -> Any:
        def bad(x: np.ndarray) -> np.ndarray:
            return np.where(np.arange(N).reshape(-1, *(1,) * (x.ndim - 1)) == 1, np.float32(np.nan), x)

        return jax.tree.map(lambda x: bad(x) if x.dtype == np.float32 else x, use)

    uses = {kind: use_of(kind, np.float32) for kind in USES}
    grads = jax.jit(lambda uses, w: {kind: use.grad(w) for kind, use in uses.items()})
    weights = WEIGHTS.astype(np.float32)
    bad = {kind: spoilt(use) for kind, use in uses.items()}
    for kind, grad in grads(bad, np.ones(N, np.float32)).items():
        assert not np.isfinite(grad).all(), kind
    right = grads(uses, weights)
    for kind, grad in grads(bad, weights).items():
        np.testing.assert_array_equal(grad, right[kind], err_msg=kind)


def test_half_precision_is_summed_in_float32() -> None:
    uses = {kind: use_of(kind, jnp.bfloat16) for kind in USES}
    sums = jax.eval_shape(lambda uses: {kind: use.grad() for kind, use in uses.items()}, uses)
    assert {kind: leaf.dtype for kind, leaf in sums.items()} == dict.fromkeys(USES, jnp.float32)


def test_weights_of_none_leave_the_arrays_alone() -> None:
    delta, ones = jax.ShapeDtypeStruct((2, 1, 3), jnp.bfloat16), jax.ShapeDtypeStruct((2,), jnp.float32)
    assert weighted(delta, None) is delta
    assert counted(delta, None) is delta
    assert jax.eval_shape(weighted, delta, ones).dtype == jnp.float32
    assert jax.eval_shape(counted, delta, ones).dtype == jnp.bfloat16


def softmax_product() -> tuple[SoftmaxProduct, Product]:
    """Of 7 classes in chunks of 3 with the cotangents of N x T losses, and the same use from its logits."""
    w, b, labels, share = (
        random(6, D, 7),
        random(7, N, 7),
        np.random.default_rng(8).integers(0, 7, (N, T)),
        random(9, N, T),
    )
    z = A @ w + b[:, None]
    sums = np.log(np.exp(z).sum(-1))
    delta = share[..., None] * (np.exp(z - sums[..., None]) - np.eye(7)[labels])
    return SoftmaxProduct(A, labels, sums, share, w, b, size=3), Product(A, delta)


def test_a_softmax_product_is_the_product_of_its_cotangents() -> None:
    with float64(), strict():
        use, same = softmax_product()
        turned = dataclasses.replace(use, w=use.w.T, class_axis=0)
        assert (use.shape, turned.shape) == ((D, 7), (7, D))
        for weights in (None, WEIGHTS):
            expected = same.grad(weights)
            assert_close((use.grad(weights), turned.grad(weights).T), (expected, expected), rtol=1e-12, atol=1e-13)
        assert_close((use.whole().delta, turned.whole().a), (same.delta, same.delta), rtol=1e-12, atol=1e-13)
        assert whole(same) is same
        assert isinstance(whole(use), Product)


def test_a_matrix_that_examples_share_is_not_repeated() -> None:
    with float64():
        use, same = softmax_product()
        leaf = jax.ShapeDtypeStruct((D, 7), jnp.float64)

        def columns(use: Any) -> Any:  # with half and with twice the cotangents
            double = dataclasses.replace(use, delta=np.stack([use.delta / 2, 2 * use.delta]))
            structure = jax.tree.structure({"w": 0})
            return Columns(Tape(jnp.zeros(N), jnp.zeros(N), ((double,),), ("['w']",), structure, (leaf,)), 2)

        found, expected = (columns(each).as_examples().uses[0][0] for each in (use, same))
        assert found.w is use.w
        assert_close(found.grad(), expected.grad(), rtol=1e-12, atol=1e-13)


def test_positions_of_any_rank() -> None:
    for shape, expected in [((4, 3), (4, 1, 3)), ((4, 5, 3), (4, 5, 3)), ((4, 2, 5, 3), (4, 10, 3))]:
        assert positions(np.zeros(shape)).shape == expected


def test_totals_over_uses_and_of_none() -> None:
    leaf = jax.ShapeDtypeStruct((2, 1), jnp.bfloat16)  # the bias of another shape than its use
    use = Addition(np.ones((4, 3, 2), jnp.bfloat16))

    @jax.jit
    def totals(use: Any) -> Any:
        return [f(uses, leaf) for uses in ((use, use), ()) for f in (total, wide_total)]

    both, wide, none, wide_none = totals(use)
    np.testing.assert_array_equal(both, np.full((2, 1), 24))
    assert both.dtype == jnp.bfloat16
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(none, np.zeros((2, 1)))
    assert (none.dtype, wide_none.dtype) == (jnp.bfloat16, jnp.float32)


# The tape.


def make_tape(dtype: Any = jnp.float32, path: str = "['b']") -> Tape:
    uses = (use_of("addition", dtype),), (use_of("convolution", dtype),)
    leaves = tuple(jax.ShapeDtypeStruct(use.shape, dtype) for (use,) in uses)
    structure = jax.tree.structure({"b": 0, "w": 0})
    return Tape(np.zeros(N), np.zeros((N, 2)), uses, (path, "['w']"), structure, leaves)


def test_a_tape_is_a_pytree_whose_structure_can_be_compared() -> None:
    tape = make_tape()
    assert tape.examples == N
    leaves, structure = jax.tree.flatten(tape)
    again = jax.tree.unflatten(structure, leaves)
    assert (again.paths, again.leaves, again.uses[1][0].stride) == (tape.paths, tape.leaves, 2)
    assert structure == jax.tree.structure(make_tape())
    assert structure != jax.tree.structure(make_tape(path="['c']"))
    # Settings given as lists are hashable: a jitted function takes the tape and gives it back.
    hash(structure)
    assert again.uses[1][0].padding == ((1, 1), (1, 1))
    assert_close(jax.jit(lambda tape: tape)(tape), tape, rtol=0)


def make_columns(count: int = 3) -> Columns:
    """Uses of every kind, whose errors have a leading axis of columns."""
    uses = []
    for kind in USES:
        use = use_of(kind)
        scaled = np.stack([(c + 1) * errors(use) for c in range(count)])
        uses.append((dataclasses.replace(use, **{error_of(use): scaled}),))
    shapes = tuple(jax.ShapeDtypeStruct(GRADIENTS[kind].shape[1:], jnp.float32) for kind in USES)
    structure = jax.tree.structure(dict.fromkeys(sorted(USES), 0))
    tape = Tape(np.arange(N), np.zeros((N, 2)), tuple(uses), tuple(USES), structure, shapes)
    return Columns(tape, count)


def test_columns_one_by_one_and_as_examples() -> None:
    """Column c has errors c + 1 times the first: so have its gradients, and so example i C + c of the merged tape."""
    with float64():
        columns = make_columns()

        @jax.jit
        def both(columns: Columns) -> Any:
            one, merged = columns.at(jnp.asarray(1)), columns.as_examples()
            only = jnp.zeros(3 * N).at[1 * 3 + 2].set(1.0)  # example 1 of column 2
            grads = [(a.grad(), b.grad(only)) for (a,), (b,) in zip(one.uses, merged.uses, strict=True)]
            return grads, merged.losses

        grads, losses = both(columns)
        np.testing.assert_array_equal(losses, np.repeat(np.arange(N), 3))
        for kind, (second, example) in zip(USES, grads, strict=True):
            np.testing.assert_allclose(second, 2 * GRADIENTS[kind].sum(0), rtol=1e-12, atol=1e-13, err_msg=kind)
            np.testing.assert_allclose(example, 3 * GRADIENTS[kind][1], rtol=1e-12, atol=1e-13, err_msg=kind)
