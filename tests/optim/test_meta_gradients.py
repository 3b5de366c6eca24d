"""Derivatives through training: every rule, with entries that never get a gradient, against central differences."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxnn import optim, per_example, tree
from jaxnn.per_example.margin import safe_norms
from jaxnn.per_example.sample import sample_tape
from tests.helpers import float64, slow
from tests.optim import meta

TABLE = meta.table()
STEP, TOLERANCE = 3e-5, 1e-6
NOISE = 1e-10
"""What rounding leaves of a central difference whose true value is 0, as that of a sign in what it is taken of."""

FORWARDS = {
    "lbfgs": "its line search",
    "scale_by_backtracking_linesearch": "the number of trials depends on values",
    "scale_by_zoom_linesearch": "the number of trials depends on values",
}
"""Rules with a `lax.while_loop`, which has no reverse mode in JAX: differentiated forwards, and equal all the same."""

QUICK = ("adam", "madgrad")
BACKWARDS = [name for name in TABLE if name not in FORWARDS]
GROUPS = [QUICK] + [
    tuple(name for name in BACKWARDS if name not in QUICK)[i : i + 10]
    for i in range(0, len(BACKWARDS) - len(QUICK), 10)
]
ROOTS = (
    "adam", "nadam", "amsgrad", "adabelief", "yogi", "radam", "adan", "novograd", "ademamix", "simplified_ademamix",
    "adopt", "acprop", "adagrad", "adadelta", "rmsprop", "lamb", "lars", "madgrad", "optimistic_adam_v2", "sm3", "dog",
    "dowg", "prodigy", "dadapt_adamw", "muon", "adafactor", "momo_adam", "shampoo", "normalize", "dpsgd",
    "quantized_state", "mechanize", "schedule_free_adamw",
)  # fmt: skip
"""Rules that take roots of gradients."""
GROUPS_OF_ROOTS = [ROOTS[:1], *(ROOTS[i : i + 11] for i in range(1, len(ROOTS), 11))]


def in_tiers(groups: Iterable[Any]) -> list[Any]:
    """The first group in the short run, the second in the long one, the others in the proof."""
    tiers: list[list[Any]] = [[], [pytest.mark.slow]]
    return [
        pytest.param(g, id=f"{g[0]}...", marks=tiers[i] if i < len(tiers) else [pytest.mark.proof])
        for i, g in enumerate(groups)
    ]


def start(name: str, dtype: Any = jnp.float64) -> Any:
    """The learning rate as a multiple of `meta.RATE`, the weights of the examples, and the parameters."""
    return jnp.ones((), dtype), jnp.linspace(0.5, 1.5, 6, dtype=dtype), meta.start(name, dtype)


def outcome(name: str, point: Any) -> Any:
    factor, weights, params = point
    return meta.outcome(TABLE[name], factor * meta.RATE, weights, params)


def program(names: Iterable[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Every rule's point as one vector, and from those to (every rule's outcome, its gradient), in one program."""
    raveled = {name: ravel_pytree(start(name)) for name in names}

    def outcomes(points: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        found = {name: outcome(name, raveled[name][1](point)) for name, point in points.items()}
        return sum(found.values()), found

    def run(points: dict[str, Any]) -> Any:
        (_, found), grads = jax.value_and_grad(outcomes, has_aux=True)(points)
        return found, grads

    return {name: np.asarray(point) for name, (point, _) in raveled.items()}, jax.jit(run)


def central_differences(run: Any, points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of fourth order, in every entry of every point; those of all rules at once."""
    found = {name: np.zeros_like(point) for name, point in points.items()}
    for i in range(max(map(len, points.values()))):
        for shift, weight in ((2, -1), (1, 8), (-1, -8), (-2, 1)):
            moved = {name: p + shift * STEP * (np.arange(len(p)) == i) for name, p in points.items()}
            for name, value in jax.device_get(run(moved)[0]).items():
                if i < len(found[name]):
                    found[name][i] += weight * value / (12 * STEP)
    return found


def assert_equal(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """In learning rate, weights and parameters; each relative to the largest of its entries."""
    assert np.isfinite(got).all(), (name, got)
    for quantity in (slice(0, 1), slice(1, 7), slice(7, None)):
        g, e = got[quantity], expected[quantity]
        assert np.abs(g - e).max() <= TOLERANCE * np.abs(e).max() + NOISE, (name, g, e)


def test_no_optimizer_is_missing() -> None:
    made = {
        name
        for name in optim.__all__
        if inspect.isfunction(getattr(optim, name))
        and any(
            word in str(inspect.signature(getattr(optim, name)).return_annotation)
            for word in ("Optimizer", "GradientTransformation")
        )
    }
    assert len(made) > 140
    assert made == TABLE.keys() | meta.PART_OF.keys()
    assert set(meta.PART_OF.values()) <= TABLE.keys()


@pytest.mark.parametrize("names", in_tiers(GROUPS))
def test_gradients_through_training_equal_central_differences(names: tuple[str, ...]) -> None:
    with float64():
        points, run = program(names)
        grads, expected = jax.device_get(run(points)[1]), central_differences(run, points)
        for name in names:
            assert_equal(name, grads[name], expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARDS)
def test_line_searches_are_differentiated_forwards(name: str) -> None:
    with float64():
        point = start(name)
        flat, unravel = ravel_pytree(point)
        run = jax.jit(lambda v: jax.jvp(lambda v: outcome(name, unravel(v)), (v,), (direction,)))
        direction = jnp.cos(jnp.arange(flat.size, dtype=flat.dtype)).at[0].set(0.5)
        values = [float(run(flat + shift * STEP * direction)[0]) for shift in (2, 1, -1, -2)]
        expected = (-values[0] + 8 * values[1] - 8 * values[2] + values[3]) / (12 * STEP)
        np.testing.assert_allclose(run(flat)[1], expected, rtol=TOLERANCE)
        if name == "scale_by_backtracking_linesearch":  # nothing that is differentiated passes through its loop
            backwards = ravel_pytree(jax.grad(outcome, 1)(name, point))[0]
            np.testing.assert_allclose(jnp.vdot(backwards, direction), expected, rtol=TOLERANCE)
            return
        with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
            jax.grad(outcome, 1)(name, point)


@pytest.mark.parametrize("names", in_tiers(GROUPS_OF_ROOTS))
def test_gradients_in_short_dtypes_from_parameters_that_are_0_are_finite(names: tuple[str, ...]) -> None:
    """Where weights start at 0, norms of parameters are roots of 0 too."""
    dtypes = (jnp.float32, jnp.bfloat16)

    @jax.jit
    def gradients(scale: Any) -> Any:
        return {
            (name, str(jnp.dtype(dtype))): jax.grad(lambda point, name=name: outcome(name, point).astype(float))(
                jax.tree.map(lambda x: x * scale.astype(x.dtype), start(name, dtype))
            )
            for name in names
            for dtype in dtypes
        }

    for scale in (jnp.ones(()), jnp.zeros(())):
        for key, found in gradients(scale).items():
            assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(found)), key


@pytest.mark.parametrize(
    ("names", "dtypes"),
    [
        (("adafactor",), (jnp.float32,)),
        *slow((("adam", "adafactor"), (jnp.float32, jnp.bfloat16))),
        pytest.param(BACKWARDS, (jnp.float32, jnp.bfloat16), marks=pytest.mark.proof),
    ],
    ids=["adafactor", "adam...", "all"],
)
def test_gradients_through_entries_that_are_dead_are_finite(names: tuple[str, ...], dtypes: tuple[Any, ...]) -> None:
    """Whole rows and columns without gradient, in the learning rate, the gradients' scale and the parameters."""

    @jax.jit
    def gradients(live: Any) -> Any:
        def of(name: str, point: Any) -> Any:
            factor, weights, params = point
            return meta.outcome(TABLE[name], factor * meta.RATE, weights, params, 3, live).astype(float)

        return {
            (name, str(jnp.dtype(dtype))): jax.grad(of, 1)(name, start(name, dtype))
            for name in names
            for dtype in dtypes
        }

    for pattern, live in meta.LIVE.items():
        for key, found in gradients(jnp.asarray(live)).items():
            leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(found)]
            assert all(np.isfinite(leaf).all() for leaf in leaves), (key, pattern)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("adam",), marks=pytest.mark.slow),
        pytest.param(("lamb", "adopt", "madgrad", "adabelief", "muon", "shampoo", "sgd"), marks=pytest.mark.proof),
    ],
)
def test_second_derivatives_in_the_learning_rate_equal_differences_of_the_first(names: tuple[str, ...]) -> None:
    with float64():

        @jax.jit
        def derivatives(factor: Any) -> Any:
            def first(factor: Any) -> Any:
                return [jax.grad(lambda f, n=n: outcome(n, (f, *start(n)[1:])))(factor) for n in names]

            return jax.jvp(first, (factor,), (jnp.ones(()),))

        second = derivatives(jnp.ones(()))[1]
        points = [derivatives(jnp.asarray(1 + shift * STEP))[0] for shift in (2, 1, -1, -2)]
        for name, found, a, b, c, d in zip(names, second, *points, strict=True):
            np.testing.assert_allclose(found, (-a + 8 * b - 8 * c + d) / (12 * STEP), rtol=1e-5, err_msg=name)


def test_an_example_without_gradient_has_derivatives_where_gradients_are_clipped() -> None:
    clips = [clip for bound in (0.5, jnp.inf) for clip in (per_example.flat(bound), per_example.psac(0.5))]
    rules = optim.clip_by_global_norm(0.5), optim.adaptive_grad_clip(0.5), optim.clip_by_block_rms(0.5)

    @jax.jit
    @jax.grad
    def gradient(grads: Any) -> Any:
        norms = jnp.stack([tree.norm({k: g[i] for k, g in grads.items()}) for i in range(2)])
        parts = [clip(norms) for clip in (*clips, per_example.automatic(0.5))]
        for bound in (0.5, jnp.inf):
            parts += [optim.per_example_global_norm_clip(grads, bound)[0]]
            parts += [optim.per_example_layer_norm_clip(grads, bound)[0]]
        parts += [opt.update(grads, opt.init(grads), grads)[0] for opt in rules]
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(parts))

    grads = {"w": np.float32([[3, 4], [0, 0]]), "b": np.float32([1, 0])}
    for scale in (0, 1):
        found = gradient(jax.tree.map(lambda g, scale=scale: scale * g, grads))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), found


def test_the_margin_of_norms_has_derivatives_where_an_example_has_no_gradient() -> None:
    def total(scale: Any) -> Any:
        tape = jax.tree.map(lambda x: x * scale if jnp.issubdtype(x.dtype, jnp.floating) else x, sample_tape())
        return jnp.sum(safe_norms(tape, per_example.norms(tape)))

    assert np.isfinite(jax.jit(jax.grad(total))(0.0))
