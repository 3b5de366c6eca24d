"""Attention by blocks and its derivative, against attention with all scores at once, in float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.ops import attention
from jaxnn.ops.attention import Visible, alibi_slopes, attend, attend_grads
from jaxnn.ops.blockwise import BLOCK, TPU_BYTES, Blocks
from tests.helpers import assert_close, float64, random, slow, strict
from tests.ops.attention_cases import KINDS, Case, by_loops, dense, drawn

EXACT = 1e-12


def found(cases: Mapping[str, Case]) -> dict[str, Any]:
    """(ours, expected) of the values, the derivative by hand, and by `jax.vjp` of `attend`; one program for all."""

    def both(case: Case, q: Any, k: Any, v: Any, do: Any, dlse: Any, mask: Any, slopes: Any) -> Any:
        visible = case.visible(mask, slopes)

        def ours(q: Any, k: Any, v: Any) -> Any:
            return attend(q, k, v, visible, scale=case.scale, block=case.block)

        values, pull = jax.vjp(ours, q, k, v)
        expected, pull_dense = jax.vjp(lambda *qkv: dense(*qkv, mask, slopes, case), q, k, v)
        grads = attend_grads(q, k, v, *values, do, visible, scale=case.scale, block=case.block)
        no = jnp.zeros_like(dlse)
        return (
            (values, grads, pull((do, dlse)), pull((do, no))),
            (expected, pull_dense((do, no)), pull_dense((do, dlse)), pull_dense((do, no))),
        )

    with float64(), strict():
        arrays = {name: case.arrays() for name, case in cases.items()}
        run = jax.jit(lambda arrays: {name: both(case, *arrays[name]) for name, case in cases.items()})
        return jax.tree.map(np.asarray, run(arrays))


def off(pair: Any) -> float:
    """The largest difference, relative to the largest entry of each array; inf if something is not finite."""
    ours, expected = map(jax.tree.leaves, pair)
    gaps = [
        np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-2) for a, b in zip(ours, expected, strict=True)
    ]
    return float(max(gap if np.isfinite(gap) else np.inf for gap in gaps))


QUICK = ("plain", "causal, blocks", "mask of pairs, blocks", "first, blocks", "nothing seen")


@pytest.mark.parametrize("names", [QUICK, *slow((tuple(KINDS),))], ids=["few", "all"])
def test_values_and_derivatives_are_those_of_dense_attention(names: tuple[str, ...]) -> None:
    gaps = {name: off(pair) for name, pair in found({name: KINDS[name] for name in names}).items()}
    assert max(gaps.values()) <= EXACT, gaps


@pytest.mark.parametrize("names", [QUICK, *slow((tuple(KINDS),))], ids=["few", "all"])
def test_the_dense_reference_is_the_definition(names: tuple[str, ...]) -> None:
    def all_of_them(arrays: Any) -> Any:
        return {name: dense(*arrays[name][:3], *arrays[name][5:], KINDS[name])[0] for name in names}

    with float64(), strict():
        arrays = {name: KINDS[name].arrays() for name in names}
        for name, o in jax.jit(all_of_them)(arrays).items():
            q, k, v, _, _, mask, slopes = arrays[name]
            expected = by_loops(q, k, v, mask, slopes, KINDS[name])
            np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-14, err_msg=name)


@hypothesis.settings(max_examples=3)
@hypothesis.given(drawn())
def test_drawn(case: Case) -> None:
    assert off(found({"": case})[""]) <= EXACT


@pytest.mark.slow
@hypothesis.settings(max_examples=40)
@hypothesis.given(drawn())
def test_many_drawn(case: Case) -> None:
    assert off(found({"": case})[""]) <= EXACT


# --- mutants of the derivative and of the mask


def without_along(right: Callable[..., Any]) -> Callable[..., Any]:
    """dz = p dp: without the term sum_r p_tr dp_tr = do . o."""
    return lambda q, k, v, o, lse, do, *rest, **how: right(q, k, v, jnp.zeros_like(o), lse, do, *rest, **how)


def one_later(self: Visible, queries: int, keys: int) -> Any:
    return self.distance(queries, keys) > 1 if self.causal else jnp.zeros((queries, keys), bool)


def itself_hidden(self: Visible, queries: int, keys: int) -> Any:
    return self.distance(queries, keys) >= 0 if self.causal else jnp.zeros((queries, keys), bool)


def other_distance(self: Visible, queries: int, keys: int) -> Any:
    t, s = (jax.lax.broadcasted_iota(jnp.int32, (queries, keys), axis) for axis in (0, 1))
    return t - s


def heads_in_turn(x: Any, k: Any) -> Any:
    """Query head h reads key head h mod K instead of floor(h K / H)."""
    n, t, h, d = x.shape
    return jnp.swapaxes(x.reshape(n, t, h // k.shape[2], k.shape[2], d), 2, 3)


def without_first(right: Callable[..., Any]) -> Callable[..., Any]:
    """Each block sees what the first does."""

    def walk(f: Callable[..., Any], arrays: Any, visible: Visible, block: int) -> Any:
        return right(lambda part, here: f(part, dataclasses.replace(here, first=visible.first)), arrays, visible, block)

    return walk


MUTANTS = {
    "no do . o term": ("plain", "attend_grads", without_along),
    "scale dropped": ("plain", "_scale", lambda right: lambda q, scale: jnp.ones((), q.dtype)),
    "scale of the caller dropped": ("scale", "_scale", lambda right: lambda q, scale: right(q, None)),
    "causal, one later": ("causal", "Visible.hidden", lambda right: one_later),
    "causal, not itself": ("causal", "Visible.hidden", lambda right: itself_hidden),
    "distance from the key": ("alibi", "Visible.distance", lambda right: other_distance),
    "heads in turn": ("plain", "_grouped", lambda right: heads_in_turn),
    "first of the block of queries forgotten": ("causal, blocks", "by_queries", without_first),
    "first of the block of keys forgotten": ("causal, blocks", "by_keys", without_first),
}
"""By name: the case that must see it, what is replaced, by what."""


@pytest.mark.parametrize("name", ["no do . o term", *slow(*list(MUTANTS)[1:])])
def test_broken_ones_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, target, broken = MUTANTS[name]
    owner, attribute = (Visible, target.split(".")[1]) if "." in target else (attention, target)
    monkeypatch.setattr(owner, attribute, broken(getattr(owner, attribute)))
    monkeypatch.setitem(globals(), "attend_grads", attention.attend_grads)
    assert off(found({case: KINDS[case]})[case]) > 1e-3


def test_a_transposed_mask_is_caught() -> None:
    case = Case(mask="pairs")

    def ours(turn: bool) -> Any:
        q, k, v, _, _, mask, slopes = case.arrays()
        return attend(q, k, v, case.visible(jnp.swapaxes(mask, 1, 2) if turn else jnp.asarray(mask), slopes))[0]

    with float64():
        q, k, v, _, _, mask, slopes = case.arrays()
        expected = by_loops(q, k, v, mask, slopes, case)
        np.testing.assert_allclose(ours(False), expected, atol=1e-12)
        assert np.abs(ours(True) - expected).max() > 1e-2


# --- nothing seen, NaN


def test_a_query_that_sees_nothing_has_value_and_derivatives_0() -> None:
    """And so has a key that no query sees; in the derivative of `attend` by JAX too."""
    mask = np.array([[True, False, True], [False, False, False]])
    q, k, v, do = (random(i, 2, 3, 2, 4) for i in range(4))

    @jax.jit
    def everything(block: Any) -> Any:
        visible = Visible(mask)
        (o, lse), pull = jax.vjp(lambda *a: attend(*a, visible, block=2), q, k, v)
        return o, lse, pull((do, jnp.ones_like(lse))), attend_grads(q, k, v, o, lse, do, visible, block=2)

    with float64(), strict():
        o, lse, by_jax, by_hand = everything(0)
    for value in (o, lse, *(g for grads in (by_jax, by_hand) for g in grads)):
        assert np.isfinite(value).all()
        assert not np.any(value[1])
    for grads in (by_jax, by_hand):
        assert not np.any(grads[1][0, 1])
        assert not np.any(grads[2][0, 1])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", [2, 256])
def test_nan_at_masked_keys_changes_no_bit(causal: bool, block: int) -> None:
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    q, k, v, do = (random(i, 2, 4, 2, 3, dtype=np.float32) for i in range(4))
    bad = [np.where(mask[..., None, None], x, np.float32(np.nan)) for x in (k, v)]

    @jax.jit
    def everything(k: Any, v: Any) -> Any:
        visible = Visible(mask, causal)
        (o, lse), pull = jax.vjp(lambda *a: attend(*a, visible, block=block), q, k, v)
        return o, lse, pull((do, jnp.ones_like(lse))), attend_grads(q, k, v, o, lse, do, visible, block=block)

    good, other = everything(k, v), everything(*bad)
    for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


# --- transformations and dtypes


def test_vmap_scan_and_traced_first_and_scale() -> None:
    q, k, v, do = (random(i, 3, 2, 4, 2, 3) for i in range(4))
    firsts, scales = np.array([0, 1, 2], np.int32), np.array([0.3, 0.5, 1.0])

    def one(q: Any, k: Any, v: Any, do: Any, first: Any, scale: Any) -> Any:
        visible = Visible(causal=True, first=first)
        o, lse = attend(q, k, v, visible, scale=scale, block=3)
        by_jax = jax.grad(lambda *a: jnp.sum(attend(*a, visible, scale=scale, block=3)[0] * do), (0, 1, 2))(q, k, v)
        return o, attend_grads(q, k, v, o, lse, do, visible, scale=scale, block=3), by_jax

    with float64(), strict():
        arguments = (q, k, v, do, firsts, scales)
        mapped = jax.jit(jax.vmap(one))(*arguments)
        scanned = jax.jit(lambda a: jax.lax.scan(lambda c, a: (c, one(*a)), 0, a)[1])(arguments)
        assert_close(mapped, scanned, rtol=1e-12, atol=1e-14)
        assert_close(mapped[1], mapped[2], rtol=1e-11, atol=1e-13)
        for i, (first, scale) in enumerate(zip(firsts, scales, strict=True)):
            case = Case(t=4, s=4, causal=True, first=int(first), scale=float(scale))
            np.testing.assert_allclose(mapped[0][i], by_loops(q[i], k[i], v[i], None, None, case), atol=1e-12)


@pytest.mark.parametrize(("dtype", "most"), [(jnp.bfloat16, 8e-3), (jnp.float16, 1e-3), (jnp.float32, 1e-6)])
def test_half_precision_is_multiplied_as_it_is_and_summed_in_float32(dtype: Any, most: float) -> None:
    """Values and derivatives by hand in the dtype of the inputs, within its rounding of float64."""
    case = Case(t=40, s=40, d=16, causal=True, block=16)
    narrow = [jnp.asarray(x, dtype) for x in case.arrays()[:4]]

    def everything(q: Any, k: Any, v: Any, do: Any) -> Any:
        o, lse = attend(q, k, v, case.visible(None, None), block=case.block)
        return o, attend_grads(q, k, v, o, lse, do, case.visible(None, None), block=case.block), lse

    with strict():
        o, grads, lse = jax.jit(everything)(*narrow)
        products = [
            e for e in equations(jax.make_jaxpr(everything)(*narrow).jaxpr) if e.primitive.name == "dot_general"
            and len(e.params["dimension_numbers"][1][0]) == 2  # of examples and heads; do . o is one of each position
        ]  # fmt: skip
    assert {leaf.dtype for leaf in (o, *grads)} == {jnp.dtype(dtype)}
    assert lse.dtype == jnp.float32
    assert len(products) == 7  # two, and the scores again with four more
    assert {v.aval.dtype for e in products for v in e.invars} == {jnp.dtype(dtype)}
    assert {e.outvars[0].aval.dtype for e in products} == {jnp.dtype(jnp.float32)}
    with float64():
        wide = [np.asarray(x, np.float64) for x in narrow]
        expected, pull = jax.vjp(lambda *qkv: dense(*qkv, None, None, case)[0], *wide[:3])
        assert off(([np.asarray(x, np.float64) for x in (o, *grads)], (expected, *pull(wide[3])))) <= most


def equations(jaxpr: Any) -> list[Any]:
    """All equations, those of inner programs included."""
    found = []
    for e in jaxpr.eqns:
        inner = [p for p in jax.tree.leaves(list(e.params.values())) if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        found += [e, *(one for p in inner for one in equations(getattr(p, "jaxpr", p)))]
    return found


# --- memory


def temporary(program: str, t: int) -> int:
    x = jax.ShapeDtypeStruct((1, t, 2, 8), jnp.float32)
    lse = jax.ShapeDtypeStruct((1, t, 2), jnp.float32)
    causal = Visible(causal=True)
    programs: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "forward": (lambda q, k, v: attend(q, k, v, causal)[0], (x, x, x)),
        "by hand": (lambda *a: attend_grads(*a, causal), (x, x, x, x, lse, x)),
        "by jax.grad": (jax.grad(lambda *a: jnp.sum(attend(*a, causal)[0] ** 2), (0, 1, 2)), (x, x, x)),
        "dense": (lambda q, k, v: dense(q, k, v, None, None, Case(causal=True))[0], (x, x, x)),
    }
    f, shapes = programs[program]
    return jax.jit(f).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def exponent(program: str, sizes: tuple[int, ...]) -> float:
    """The slope of log memory over log T."""
    return float(np.polyfit(np.log(sizes), np.log([temporary(program, t) for t in sizes]), 1)[0])


@pytest.mark.parametrize("program", ["forward", "by hand", "by jax.grad"])
def test_memory_is_linear_in_the_number_of_positions(program: str) -> None:
    assert exponent(program, (512, 1024, 2048, 4096)) <= 1.1


def test_memory_of_all_scores_is_quadratic() -> None:
    assert exponent("dense", (512, 1024, 2048)) > 1.8


# --- oracles


ORACLES = {
    "plain": Case(t=6, s=6, k=3, g=1),
    "causal": Case(t=6, s=6, k=3, g=1, causal=True, block=4),
    "pairs": Case(t=6, s=4, k=3, g=1, mask="pairs"),
    "grouped": Case(t=6, s=6, k=2, g=2, causal=True),
    "scale": Case(t=6, s=6, k=3, g=1, scale=0.9),
    "alibi": Case(t=6, s=6, k=2, g=1, alibi=True),
}


def ours_of(case: Case) -> tuple[np.ndarray, list[np.ndarray]]:
    """o and the derivative of sum(o do) by hand, float64."""
    with float64(), strict():
        q, k, v, do, _, mask, slopes = case.arrays()
        visible = case.visible(mask, slopes)

        @jax.jit
        def run(q: Any, k: Any, v: Any) -> Any:
            o, lse = attend(q, k, v, visible, scale=case.scale, block=case.block)
            return o, attend_grads(q, k, v, o, lse, do, visible, scale=case.scale, block=case.block)

        o, grads = jax.tree.map(np.asarray, run(q, k, v))
        return o, list(grads)


def seen_by_all(case: Case) -> tuple[Any, ...]:
    """The arrays of a case, in which every query of a mask sees key 0: others make NaN of it."""
    q, k, v, do, _, mask, slopes = case.arrays()
    if mask is not None and mask.ndim == 3:
        assert mask.any(-1).all()
    return q, k, v, do, mask, slopes


@pytest.mark.parametrize("name", ORACLES)
def test_equals_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    case = ORACLES[name]._replace(seed=2)
    q, k, v, do, mask, slopes = seen_by_all(case)
    q, k, v = (torch.tensor(x, requires_grad=True) for x in (q, k, v))
    how: dict[str, Any] = {"is_causal": case.causal, "scale": case.scale, "enable_gqa": case.g > 1}
    if mask is not None:
        how["attn_mask"] = torch.tensor(mask[:, None])
    if slopes is not None:
        ahead = np.arange(case.s)[None] - np.arange(case.t)[:, None]
        how["attn_mask"] = torch.tensor(slopes[:, None, None] * ahead)[None]
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    o = torch.nn.functional.scaled_dot_product_attention(*heads, **how).transpose(1, 2)
    grads = torch.autograd.grad((o * torch.tensor(do)).sum(), (q, k, v))
    ours, by_hand = ours_of(case)
    np.testing.assert_allclose(ours, o.detach().numpy(), rtol=1e-12, atol=1e-13)
    for a, b in zip(by_hand, grads, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["pairs", "grouped", *slow("plain", "causal", "scale", "alibi")])
def test_equals_jax_nn(name: str) -> None:
    case = ORACLES[name]._replace(seed=2)
    with float64():
        q, k, v, do, mask, slopes = seen_by_all(case)
        how: dict[str, Any] = {"is_causal": case.causal, "scale": case.scale}
        if mask is not None:
            how["mask"] = mask[:, None]
        if slopes is not None:
            ahead = np.arange(case.s)[None] - np.arange(case.t)[:, None]
            how["bias"] = (slopes[:, None, None] * ahead)[None]
        o, pull = jax.vjp(lambda *a: jax.nn.dot_product_attention(*a, **how), *map(jnp.asarray, (q, k, v)))
        grads = pull(jnp.asarray(do))
    ours, by_hand = ours_of(case)
    # Theirs computes probabilities in float32.
    np.testing.assert_allclose(ours, o, rtol=1e-5, atol=1e-6)
    for a, b in zip(by_hand, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_fills_the_last_block_of_keys_is_no_key() -> None:
    """Where all scores are so low that a score of 0 beside them would have an infinite probability."""
    with float64(), strict():
        x = 1.0 + random(4, 1, 5, 1, 4)
        low = random(5, 1, 5, 1, 4) - 1e3

        def of(block: int) -> Any:
            o, lse = attend(x, low, x, Visible(causal=False), block=block)
            return o, lse, attend_grads(x, low, x, o, lse, x, block=block)

        by_two, at_once = jax.jit(lambda: (of(2), of(5)))()
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), by_two, at_once)
        assert np.all(np.asarray(by_two[1]) < -800)


@pytest.mark.parametrize(
    ("n", "positions", "gpu", "tpu", "tpu_backward"),
    [(16, 1024, 1024, 64, 128), (1, 1024, 16384, 1024, 2048), (16, 4096, 256, 256, 32), (256, 4096, 256, 256, 256)],
)
def test_blocks_by_platform(n: int, positions: int, gpu: int, tpu: int, tpu_backward: int) -> None:
    """Of 12 heads: the largest power of two whose scores fit, or BLOCK where that would be a small one."""
    each = n * 12 * positions * 4
    assert Blocks.of(each) == (BLOCK, gpu, tpu)
    assert Blocks.of(each, on_chip=2 * TPU_BYTES).tpu == tpu_backward


def test_the_block_is_chosen_where_the_program_is_lowered() -> None:
    """For a TPU 8 blocks of 32, on the CPU of this test none: T = 256."""
    q = jax.ShapeDtypeStruct((64, 256, 12, 8), jnp.bfloat16)
    traced = jax.jit(lambda q: attend(q, q, q)).trace(q)
    of_cpu, of_tpu = (traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu"))
    assert "stablehlo.while" not in of_cpu
    assert "stablehlo.while" in of_tpu


def test_alibi_slopes_are_those_of_the_paper() -> None:
    """Section 3: 1/2, ..., 1/256 for 8 heads; for 16, 1/sqrt(2), 1/2, ..., 1/256; the code's choice for 12 and 6."""
    np.testing.assert_allclose(alibi_slopes(8), [1 / 2**i for i in range(1, 9)])
    sixteen = [2 ** (-i / 2) for i in range(1, 17)]
    np.testing.assert_allclose(alibi_slopes(16), sixteen, rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(12), [*(1 / 2**i for i in range(1, 9)), *sixteen[0:8:2]], rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(6), [*(1 / 4**i for i in range(1, 5)), 1 / 2, 1 / 8], rtol=1e-6)
    np.testing.assert_allclose(alibi_slopes(1), [1 / 256])
