"""The adapter with the arguments of jax_privacy.clipped_grad: against NumPy, and against jax_privacy where it is."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.per_example import clipped_grad_of
from jaxnn.per_example.privacy import privacy_api
from tests.helpers import assert_close, float64, random, slow
from tests.per_example.cases import flat, gap, vector

EXACT = 1e-10
N = 6


def peer() -> Any:
    """jax_privacy, whose own warnings are no failures of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("jax_privacy.clipping")


def of_batch(params: Any, x: Any, y: Any) -> Any:
    """A mean over a batch, of one example here: what keep_batch_dim=True is for."""
    z = jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]
    return jnp.mean(jnp.square(z - y))


def of_one(params: Any, x: Any, y: Any) -> Any:
    return of_batch(params, x[None], y[None])


def with_aux(params: Any, x: Any, y: Any) -> Any:
    z = jnp.tanh(x @ params["w"] + params["b"])
    return of_batch(params, x, y), {"hidden": z, "none": None, "sum": jnp.sum(z)}


def of_two(y: Any, w: Any, x: Any, rest: Any) -> Any:
    """Parameters second and fourth, data first and third."""
    return of_batch({"w": w} | rest, x, y)


def noisy(params: Any, x: Any, key: Any, y: Any) -> Any:
    """With a random mask for each example."""
    keep = jax.random.bernoulli(key["mask"], 0.5, x.shape).astype(x.dtype)
    return of_one(params, keep * x, y)


def scaled(grads: Any) -> Any:
    """Another structure than the parameters'."""
    return {"first": 3.0 * grads["w"][0], "rest": (grads["b"], grads["v"] / 2)}


def problem(dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    params = {"w": 0.5 * random(0, 4, 3), "b": 0.3 * random(1, 3), "v": random(2, 3)}
    return jax.tree.map(lambda v: v.astype(dtype), (params, random(3, N, 4), 2 * random(4, N)))


def data_of(name: str) -> tuple[Any, ...]:
    params, x, y = problem()
    if name == "groups":
        return params, np.stack([x, 2 * x, x - 1], 1), np.stack([y, -y, y], 1)
    if name == "two":
        return y, params.pop("w"), x, params
    if name == "keys":
        return params, x, {"mask": jax.random.key(3)}, y
    return params, x, y


class Case(NamedTuple):
    fun: Callable[..., Any]
    settings: dict[str, Any]
    data: str = "plain"
    named: tuple[str, ...] = ()


BOUND = {"l2_clip_norm": 1.5}
BOTH = {"batch_argnums": (1, 2)}
ALL = {"return_values": True, "return_grad_norms": True}
PADDING = ("is_padding_example",)
CASES = {
    "batches of one": Case(of_batch, BOUND | BOTH),
    "single examples": Case(of_one, BOUND | BOTH | ALL | {"keep_batch_dim": False}),
    "groups": Case(of_batch, BOUND | BOTH | ALL | {"keep_batch_dim": False}, "groups"),
    "lists of arguments": Case(of_two, BOUND | ALL | {"argnums": [1, 3], "batch_argnums": [0, 2]}, "two"),
    "one argument in a list": Case(of_two, BOUND | {"argnums": [3], "batch_argnums": [2, 0]}, "two"),
    "aux": Case(with_aux, BOUND | BOTH | ALL | {"has_aux": True}),
    "aux alone": Case(with_aux, BOUND | BOTH | {"has_aux": True, "microbatch_size": 2}),
    "values alone": Case(of_batch, BOUND | BOTH | {"return_values": True}),
    "unit norm": Case(of_batch, BOUND | BOTH | {"rescale_to_unit_norm": True, "normalize_by": 4.0}),
    "bound 0": Case(of_batch, BOTH | ALL | {"l2_clip_norm": 0.0}),
    "bound 0, unit norm": Case(of_batch, BOTH | {"l2_clip_norm": 0.0, "rescale_to_unit_norm": True}),
    "no bound": Case(of_batch, BOTH | ALL | {"l2_clip_norm": np.inf, "normalize_by": 6}),
    "no bound, unit norm": Case(of_batch, BOTH | {"l2_clip_norm": np.inf, "rescale_to_unit_norm": True}),
    "microbatches": Case(of_batch, BOUND | BOTH | ALL | {"microbatch_size": 3}),
    "transformed": Case(of_batch, BOUND | BOTH | ALL | {"pre_clipping_transform": scaled}),
    "transformed in microbatches": Case(
        of_batch, BOUND | BOTH | ALL | {"pre_clipping_transform": scaled, "microbatch_size": 2}
    ),
    "keys": Case(noisy, BOUND | ALL | {"batch_argnums": (1, 3), "prng_argnum": 2, "keep_batch_dim": False}, "keys"),
    "keys in microbatches": Case(
        noisy,
        BOUND | {"batch_argnums": (1, 3), "prng_argnum": 2, "keep_batch_dim": False, "microbatch_size": 2},
        "keys",
    ),
    "padding": Case(of_batch, BOUND | BOTH | ALL, named=PADDING),
    "padding, NaN kept": Case(of_batch, BOUND | BOTH | {"nan_safe": False}, named=PADDING),
    "dtype": Case(of_batch, BOUND | BOTH | {"dtype": np.float32}),
    "axis name": Case(of_batch, BOUND | BOTH | {"spmd_axis_name": "examples"}),
}


QUICK = [
    "single examples", "groups", "lists of arguments", "aux", "unit norm", "no bound", "microbatches", "transformed",
    "keys", "padding",
]  # fmt: skip
"""One case of each argument; the others combine them."""


def called(make: Any, case: Case) -> tuple[Any, Any]:
    """What a made function returns, compiled, and the function."""
    f = make(case.fun, **case.settings)
    named = {name: np.array([False, True, False, False, True, True]) for name in case.named}
    return jax.jit(lambda *args: f(*args, **named))(*data_of(case.data)), f


@functools.cache
def ours(name: str) -> tuple[Any, Any]:
    with float64():
        return called(clipped_grad_of, CASES[name])


@functools.cache
def written_out(name: str) -> tuple[Any, Any, Any]:
    """(the sum, values, norms) from the gradients of single examples, in float64."""
    case = CASES[name]
    s, args = case.settings, list(data_of(case.data))
    batched, has_aux = s["batch_argnums"], s.get("has_aux", False)
    if "prng_argnum" in s:
        args[2] = {"mask": jax.random.split(args[2]["mask"], N)}
    axes = [0 if i in (*batched, s.get("prng_argnum")) else None for i in range(len(args))]

    @jax.jit
    def of_example(*one: Any) -> Any:
        if s.get("keep_batch_dim", True):
            one = tuple(a[None] if k in batched else a for k, a in enumerate(one))
        value, g = jax.value_and_grad(case.fun, s.get("argnums", 0), has_aux=has_aux)(*one)
        return value[0] if has_aux else value, g, s.get("pre_clipping_transform", lambda tree: tree)(g)

    values, norms, rows = [], [], []
    for i in range(N):
        one = [a if ax is None else jax.tree.map(lambda v, i=i: v[i], a) for a, ax in zip(args, axes, strict=True)]
        value, g, transformed = of_example(*one)
        values.append(value)
        norms.append(np.linalg.norm(vector(g)))
        rows.append(vector(transformed))
    sizes, bound = np.linalg.norm(rows, axis=1), s["l2_clip_norm"]
    with np.errstate(divide="ignore"):
        factors = np.minimum(np.divide(1.0, bound), 1 / sizes) if s.get("rescale_to_unit_norm") else None
    factors = np.minimum(1, bound / sizes) if factors is None else factors
    kept = np.array([1, 0, 1, 1, 0, 0]) if case.named else np.ones(N)
    return (kept * factors) @ np.array(rows) / s.get("normalize_by", 1.0), np.array(values), np.array(norms)


def error_of_sum(name: str, **changed: Any) -> float:
    """How far the sum is from the one written out; also what the mutants are caught by."""
    case = CASES[name]
    with float64():
        found, f = called(clipped_grad_of, case._replace(settings=case.settings | changed))
        sums, expected = found[0] if f.has_aux else found, written_out(name)[0]
        return float(np.abs(vector(sums) - expected).max() / max(np.abs(expected).max(), 1.0))


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in CASES if name not in QUICK))])
def test_equals_what_is_written_out(name: str) -> None:
    settings = CASES[name].settings
    with float64():
        (found, f), (expected, values, norms) = ours(name), written_out(name)
    sums, aux = found if f.has_aux else (found, None)
    tolerance = 1e-6 if "dtype" in settings else EXACT
    np.testing.assert_allclose(vector(sums), expected, rtol=tolerance, atol=tolerance)
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {np.dtype(settings.get("dtype", np.float64))}
    if settings.get("return_values"):
        np.testing.assert_allclose(aux.values, values, rtol=EXACT)
    if settings.get("return_grad_norms"):
        np.testing.assert_allclose(aux.grad_norms, norms, rtol=EXACT)
    if settings.get("has_aux"):
        assert aux.aux["hidden"].shape == (N, 3), "the axis of the batch of one is gone"
        assert aux.aux["sum"].shape == (N,)


QUICK_OF_PEER = ["lists of arguments", "aux", "unit norm", "padding"]


@pytest.mark.parametrize("name", [*QUICK_OF_PEER, *slow(*(name for name in CASES if name not in QUICK_OF_PEER))])
def test_equals_jax_privacy(name: str) -> None:
    case, theirs = CASES[name], peer()
    with float64(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found, f), (expected, g) = ours(name), called(theirs.clipped_grad, case)
    assert f.has_aux == g.has_aux
    assert f.l2_norm_bound == g.l2_norm_bound
    if f.has_aux:
        assert found[1]._fields == expected[1]._fields
        found, expected = (found[0], tuple(found[1])), (expected[0], tuple(expected[1]))
    assert_close(found, expected, rtol=EXACT, atol=1e-6 if "dtype" in case.settings else EXACT)
    import dp_accounting

    for relation in dp_accounting.NeighboringRelation:
        assert f.sensitivity(relation) == f.sensitivity(relation.name) == g.sensitivity(relation)
    assert f.sensitivity() == g.sensitivity()


def test_the_signature_is_that_of_jax_privacy() -> None:
    ours, theirs = (inspect.signature(f).parameters for f in (clipped_grad_of, peer().clipped_grad))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    for name in set(ours) - {"pre_clipping_transform"}:
        assert ours[name].default == theirs[name].default, name


@pytest.mark.slow
def test_keyword_arguments_have_examples_too() -> None:
    with float64():
        params, x, y = problem()

        def fun(params: Any, x: Any, *, y: Any) -> Any:
            return of_one(params, x, y)

        for size in (None, 4):
            f = clipped_grad_of(fun, l2_clip_norm=1.0, keep_batch_dim=False, microbatch_size=size)
            expected = clipped_grad_of(of_one, l2_clip_norm=1.0, keep_batch_dim=False, batch_argnums=(1, 2))
            assert_close(jax.jit(f)(params, x, y=y), jax.jit(expected)(params, x, y), rtol=EXACT)


@pytest.mark.slow
def test_microbatches_need_not_divide_the_batch() -> None:
    for size in (1, 4, 5, 6, 100):
        assert error_of_sum("microbatches", microbatch_size=size) <= EXACT


@pytest.mark.parametrize("transform", [True, *slow(False)])
def test_an_example_that_is_not_finite(transform: bool) -> None:
    """It adds nothing; with nan_safe=False the sum is NaN, but not for the sake of padding."""
    params, x, y = problem(np.float32)
    settings = BOTH | BOUND | ({"pre_clipping_transform": scaled} if transform else {})
    f, unsafe = (jax.jit(clipped_grad_of(of_batch, **settings, nan_safe=safe)) for safe in (True, False))
    padding, all_count = np.arange(N) == 2, np.zeros(N, bool)
    for bad in (np.nan, np.inf):
        x[2] = bad
        without = f(params, x, y, is_padding_example=padding)
        assert np.isfinite(vector(without)).all()
        assert_close(f(params, x, y, is_padding_example=all_count), without, rtol=0)
        assert np.isnan(vector(unsafe(params, x, y, is_padding_example=all_count))).all()
        assert_close(unsafe(params, x, y, is_padding_example=padding), without, rtol=0)
    assert_close(f(params, x, y), without, rtol=0)


def test_half_precision_is_summed_in_float32() -> None:
    """600 gradients of 1 add up to 600: bfloat16 stops at 256."""
    x, p = np.ones((600, 2), jnp.bfloat16), np.zeros(2, jnp.bfloat16)
    f = clipped_grad_of(
        lambda p, x: jnp.vdot(p, x), l2_clip_norm=10.0, keep_batch_dim=False, microbatch_size=50, return_grad_norms=True
    )
    sums, aux = jax.jit(f)(p, x)
    assert sums.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(sums, np.float32), 600)
    assert aux.grad_norms.dtype == np.float32
    wide = clipped_grad_of(lambda p, x: jnp.vdot(p, x), l2_clip_norm=1.0, keep_batch_dim=False, dtype=jnp.float32)
    np.testing.assert_allclose(jax.jit(wide)(p, x), 600 / 2**0.5, rtol=1e-4)


def test_bounds_may_be_traced() -> None:
    params, x, y = problem(np.float32)

    @jax.jit
    def of(bound: Any) -> Any:
        return clipped_grad_of(of_batch, l2_clip_norm=bound, **BOTH)(params, x, y)

    assert_close(of(1.5), jax.jit(clipped_grad_of(of_batch, l2_clip_norm=1.5, **BOTH))(params, x, y), rtol=1e-4)
    assert not np.any(vector(of(-1.0)))


ENTRIES = st.one_of(st.floats(-100, 100, width=32), st.sampled_from([0.0, 1e-30, 1e25, np.nan, np.inf, -np.inf]))
SUMS = {
    "examples": {"keep_batch_dim": False},
    "unit norm": {"keep_batch_dim": False, "rescale_to_unit_norm": True},
    "microbatches": {"microbatch_size": 2},
    "transformed": {"pre_clipping_transform": lambda g: {"a": 5 * g}},
    "groups": {"keep_batch_dim": False, "normalize_by": 3.0},
}


@functools.cache
def _sum(name: str) -> Any:
    def fun(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(x @ params)) + 0.5 * jnp.sum(jnp.square(x @ params - 1))

    f = clipped_grad_of(fun, l2_clip_norm=0.7, **SUMS[name])
    return jax.jit(lambda x: f(jnp.ones(3), x)), f.sensitivity(), f.sensitivity("REPLACE_ONE")


@pytest.mark.parametrize("name", ["examples", "groups", *slow("unit norm", "microbatches", "transformed")])
@hypothesis.given(
    rows=st.lists(st.lists(ENTRIES, min_size=6, max_size=6), min_size=5, max_size=5), which=st.integers(0, 3)
)
def test_one_example_or_group_moves_the_sum_by_at_most_the_sensitivity(name: str, rows: Any, which: int) -> None:
    data = np.array(rows, np.float32)
    *x, other = data.reshape(5, 2, 3) if name == "groups" else data[:, :3]
    x = np.stack(x)
    f, most, most_replaced = _sum(name)
    whole = vector(f(x))
    assert np.isfinite(whole).all()
    zeroed, replaced = x.copy(), x.copy()
    zeroed[which], replaced[which] = 0, other
    # A row of zeros has a gradient of its own here: to zero one out is to replace it.
    others = vector(f(np.delete(x, which, 0)))
    assert np.linalg.norm(whole - others) <= most * (1 + 1e-5) + 1e-5
    assert np.linalg.norm(whole - vector(f(replaced))) <= most_replaced * (1 + 1e-5) + 1e-5
    assert np.linalg.norm(whole - vector(f(zeroed))) <= most_replaced * (1 + 1e-5) + 1e-5


def _broken(name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(privacy_api, name, change(getattr(privacy_api, name)))


def _cut_first(transform: Any) -> Any:
    def cut(grads: Any) -> Any:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        return transform(jax.tree.map(lambda g: g * jnp.minimum(1, 1.5 / norm), grads))

    return cut


MUTANTS = {
    "the bound times 2": ("batches of one", _broken("_factors", lambda right: lambda c, unit: right(2 * c, unit))),
    "always rescaled": ("batches of one", _broken("_factors", lambda right: lambda c, unit: right(c, True))),
    "never rescaled": ("unit norm", _broken("_factors", lambda right: lambda c, unit: right(c, False))),
    "clipped before it is transformed too": (
        "transformed",
        _broken("_transformed", lambda right: lambda tape, f, like: right(tape, _cut_first(f), like)),
    ),
    "microbatches doubled": (
        "microbatches",
        _broken(
            "over_microbatches",
            lambda right: lambda f, data, n: jax.tree.map(lambda v: 2 * v, right(f, data, n)),
        ),
    ),
    "one factor for all": (
        "microbatches",
        _broken("clipped_grad", lambda right: lambda tape, c: right(tape, lambda n: 0 * n + c(n).mean())),
    ),
    "padding counts": ("padding", _broken("clipped_grad", lambda right: lambda tape, clip: right(tape, 1.5))),
}


QUICK_MUTANTS = ["never rescaled", "clipped before it is transformed too", "padding counts"]


@pytest.mark.parametrize("name", [*QUICK_MUTANTS, *slow(*(name for name in MUTANTS if name not in QUICK_MUTANTS))])
def test_broken_versions_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, breaks = MUTANTS[name]
    breaks(monkeypatch)
    assert error_of_sum(case) > 1e-3


@pytest.mark.slow
def test_keys_are_split_for_each_example() -> None:
    """As jax_privacy splits them; one key for all would give all examples one mask."""
    with float64():
        f = clipped_grad_of(
            lambda p, x, key: p * x * jax.random.normal(key, dtype=x.dtype),
            l2_clip_norm=np.inf,
            prng_argnum=2,
            keep_batch_dim=False,
            return_grad_norms=True,
        )
        norms = f(jnp.float64(1.0), jnp.ones(N), jax.random.key(5))[1].grad_norms
        expected = [abs(jax.random.normal(key, dtype=np.float64)) for key in jax.random.split(jax.random.key(5), N)]
        np.testing.assert_allclose(norms, expected, rtol=EXACT)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"l2_clip_norm": -1.0}, ValueError, "l2_clip_norm must lie in"),
        ({"l2_clip_norm": np.nan}, ValueError, "l2_clip_norm must lie in"),
        ({"normalize_by": 0.0}, ValueError, "normalize_by must be a finite number > 0"),
        ({"argnums": 1}, ValueError, "disjoint"),
        ({"argnums": (0, 1)}, ValueError, "disjoint"),
        ({"argnums": -1}, ValueError, "must be >= 0"),
        ({"batch_argnums": ()}, ValueError, "must name an argument"),
        ({"microbatch_size": 0}, ValueError, "microbatch_size must be at least 1"),
        ({"pre_clipping_transform": None}, TypeError, "pre_clipping_transform must be a function"),
    ],
)
def test_settings_out_of_range(settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        clipped_grad_of(of_one, **(BOUND | settings))


def test_calls_that_do_not_fit() -> None:
    params, x, y = problem(np.float32)
    f = clipped_grad_of(of_batch, **BOUND, **BOTH)
    with pytest.raises(ValueError, match=r"batch_argnums are \(1, 2\), but there are 2 positional"):
        f(params, x)
    with pytest.raises(ValueError, match="same N >= 1"):
        f(params, x, y[:3])
    with pytest.raises(ValueError, match="same N >= 1"):
        f(params, x[:0], y[:0])
    with pytest.raises(ValueError, match=r"is_padding_example must have shape \(6,\), got \(3,\)"):
        f(params, x, y, is_padding_example=np.zeros(3, bool))
    with pytest.raises(ValueError, match="expected one of"):
        f.sensitivity("NEARBY")
    with pytest.raises(TypeError, match="fun must be a function"):
        clipped_grad_of(None, **BOUND)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match=r"scalar|one example"):
        clipped_grad_of(lambda p, x, y: jnp.ones(2) * p["b"][:2], **BOUND, **BOTH)(params, x, y)


def test_the_helpers_of_these_tests() -> None:
    """The sum that is written out has the sizes that clipping is to show: some cut, some whole."""
    with float64():
        norms = written_out("batches of one")[2]
    assert 0 < np.sum(norms > 1.5) < N
    assert gap(flat({"a": np.ones((2, 3))}), np.ones((2, 3))) == 0
