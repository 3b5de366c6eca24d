"""Tables that are looked up and multiplied in one loss: tapes by hand, gradients by NumPy."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import per_example
from jaxnn.ops import steps
from jaxnn.ops.views import Slice, Transpose, View
from jaxnn.per_example import blocks
from jaxnn.per_example.margin import safe_norms
from jaxnn.tape import Lookup, Placed, Product, Whole
from tests.helpers import float64, random, strict
from tests.per_example.cases import flat, gap, tape_of, vector
from tests.per_example.oracles import EXACT, SINGLE, STATISTICS, Explicit, Given, parts_of
from tests.per_example.recording.losses import make

SHAPES = {
    "tied, norm product": (5, 9, 4, (3,), (1,)),
    "tied, Gram": (5, 40, 30, (2, 3), (1, 3)),
    "tied, materialize in chunks": (6, 5, 4, (4, 2), (3, 1)),
}
"""By strategy: N, rows, columns, and the positions of each lookup and of each product."""

FIRST = Slice((0, 0), (5, 6), (1, 1))

PER_EXAMPLE = [name for name in STATISTICS if "layer" not in name]


def table(
    seed: int, n: int, rows: int, columns: int, lookups: tuple[int, ...], products: tuple[int, ...]
) -> tuple[list[Any], np.ndarray]:
    """The uses of one table, in a random order, and its gradients (N, rows, columns). Every second product is recorded
    as one of the transpose; some indices are repeated, some outside the table."""
    rng = np.random.default_rng(seed)
    g, uses = np.zeros((n, rows, columns)), []
    for t in lookups:
        indices = rng.integers(-1, rows + 1, (n, t)).astype(np.int32)
        indices[:, t // 2 :] = indices[:, : t - t // 2]
        delta = rng.standard_normal((n, t, columns))
        for i, j in np.ndindex(n, t):
            if 0 <= indices[i, j] < rows:
                g[i, indices[i, j]] += delta[i, j]
        uses.append(Lookup(indices, delta, rows))
    for k, s in enumerate(products):
        u, h = rng.standard_normal((n, s, rows)), rng.standard_normal((n, s, columns))
        g += np.einsum("nsv,nsd->nvd", u, h)
        turned = View((rows, columns)).then(Transpose((1, 0)))
        uses.append(Placed(Product(h, u), turned) if k % 2 else Product(u, h))
    return [uses[i] for i in rng.permutation(len(uses))], g


def tape_with(uses: Iterable[Any], rows: int, columns: int, dtype: Any = np.float64) -> Any:
    n = jax.tree.leaves(tuple(uses))[0].shape[0]
    arrays = jax.tree.map(lambda x: x if x.dtype == np.int32 else jnp.asarray(x, dtype), tuple(uses))
    return tape_of(np.zeros(n), np.zeros(n), {"w": jnp.zeros((rows, columns), dtype)}, {"w": arrays})


def gaps(shape: Any, names: Iterable[str] = PER_EXAMPLE, seed: int = 0, dtype: Any = np.float64) -> dict[str, float]:
    """How far statistics of a table are from those of its gradients; the second batch is of 4 examples."""
    n, rows, columns = shape[:3]
    (mine, g), (others, h) = (table(seed + i, m, *shape[1:]) for i, m in enumerate((n, 4)))
    tape, other = (tape_with(uses, rows, columns, dtype) for uses in (mine, others))
    if dtype != np.float64:
        g, h = (_dense(t, rows, columns) for t in (tape, other))
    direction, weights, bound = (
        random(7, rows, columns),
        random(8, n),
        float(np.median(np.linalg.norm(flat(g), axis=1))),
    )
    explicit = Explicit(flat(g), flat(h), direction.ravel(), weights, bound, parts_of({"w": direction}))
    narrow = [jnp.asarray(x, np.float32 if dtype != np.float64 else dtype) for x in (direction, weights, bound)]
    chosen = {name: STATISTICS[name] for name in names}

    @jax.jit
    def found(tape: Any, other: Any, direction: Any, weights: Any, bound: Any) -> Any:
        given = Given(tape, other, {"w": direction}, weights, bound)
        return {name: s.ours(given) for name, s in chosen.items()}

    with strict():
        values = found(tape, other, *narrow)
    return {name: gap(vector(values[name]), s.expected(explicit).ravel()) for name, s in chosen.items()}


def _dense(tape: Any, rows: int, columns: int) -> np.ndarray:
    """The gradients of a tape's own numbers, in float64."""
    n, g = tape.examples, 0.0
    for use in tape.uses[0]:
        bare = use.use if isinstance(use, Placed) else use
        wide = {name: np.asarray(x, np.float64) for name, x in vars(bare).items() if name != "rows"}
        if isinstance(bare, Product):
            grads = np.einsum("nsd,nsp->ndp", wide["a"], wide["delta"])
            g = g + (np.swapaxes(grads, 1, 2) if isinstance(use, Placed) else grads)
        else:
            one_hot = np.asarray(bare.indices)[:, :, None] == np.arange(rows)
            g = g + np.einsum("ntv,ntd->nvd", one_hot, wide["delta"])
    return np.asarray(g).reshape(n, rows, columns)


def tied_gap(*names: str) -> float:
    """The largest error of these statistics where no table is materialized."""
    with float64():
        return max(gaps(SHAPES["tied, Gram"], names).values())


@pytest.mark.parametrize("strategy", SHAPES)
def test_every_statistic_by_each_strategy(strategy: str) -> None:
    shape = SHAPES[strategy]
    with float64():
        (row,) = per_example.plan(tape_with(table(0, *shape)[0], *shape[1:3]))
        found = gaps(shape)
    assert row.strategy == strategy
    assert max(found.values()) <= EXACT, found


def _kinds(seed: int, n: int) -> dict[str, tuple[list[Any], np.ndarray]]:
    """Uses of one table of every form, and their gradients."""
    rows, columns = 12, 6
    found = {"nothing": ([], np.zeros((n, rows, columns)))}
    found |= {
        "lookup": table(seed, n, rows, columns, (3,), ()),
        "product": table(seed, n, rows, columns, (), (2,)),
        "tied": table(seed, n, rows, columns, (3,), (2,)),
        "tied, many": table(seed, n, rows, columns, (7,), (20,)),
    }
    (product,), g = table(seed, n, rows, columns, (), (2,))
    turned, part = View((rows, columns)).then(Transpose((1, 0))), View((rows, columns)).then(FIRST)
    found["transposed"] = [Placed(Product(product.delta, product.a), turned)], g
    cut = np.where(np.arange(rows)[:, None] < 5, g, 0)
    found["part"] = [Placed(Product(product.a[..., :5], product.delta), part)], cut
    whole = random(seed, n, rows, columns)
    found["whole"] = [Whole(whole)], whole
    for name, of in (("mixed", "lookup"), ("overlapping", "part")):
        found[name] = [*found[of][0], Whole(whole)], found[of][1] + whole
    return found


@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [2**25, 1200])
def test_products_of_every_form_with_every_other(most_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tapes of different losses of one parameter, at once and in blocks of pairs."""
    monkeypatch.setattr(blocks, "CHUNK_BYTES", most_bytes)
    monkeypatch.setattr(blocks, "OTHER_BYTES", most_bytes)
    with float64():
        mine, others = _kinds(0, 3), _kinds(1, 2)

        def tape(uses: Any, g: Any) -> Any:
            return tape_with(uses, 12, 6) if uses else dataclasses.replace(tape_with([Whole(g)], 12, 6), uses=((),))

        tapes, other_tapes = ({name: tape(*one) for name, one in kinds.items()} for kinds in (mine, others))

        @jax.jit
        def products(tapes: Any, others: Any) -> Any:
            return {i: {j: per_example.gram(tapes[i], others[j]) for j in others} for i in tapes}

        found = products(tapes, other_tapes)
        for (i, (_, g)), (j, (_, h)) in itertools.product(mine.items(), others.items()):
            assert gap(found[i][j], flat(g) @ flat(h).T) <= EXACT, (i, j)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHAPES)
def test_in_chunks(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One or two examples at a time, nothing held for all."""
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(blocks, "OTHER_BYTES", 2000)
    monkeypatch.setattr(steps, "CPU_BYTES", 2000)
    with float64():
        found = gaps(SHAPES[strategy])
    assert max(found.values()) <= EXACT, found


POSITIONS = st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), POSITIONS, POSITIONS, st.integers(0, 99))
def test_random_tables(n: int, rows: int, columns: int, lookups: Any, products: Any, seed: int) -> None:
    with float64():
        found = gaps((n, rows, columns, lookups, products), ["sq_norms", "gram, two batches", "variance"], seed)
    assert max(found.values()) <= EXACT, found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SHAPES)
def test_half_precision(strategy: str) -> None:
    """A tape in bfloat16: statistics of its numbers, in float32."""
    names = ["sq_norms", "gram", "gram, two batches", "second_moment", "variance", "jvp_examples", "materialize"]
    found = gaps(SHAPES[strategy], names, dtype=jnp.bfloat16)
    assert max(found.values()) <= SINGLE, found


@pytest.mark.parametrize("strategy", list(SHAPES)[1:])
def test_over_tapes_by_vmap_and_scan(strategy: str) -> None:
    with float64():
        shape = SHAPES[strategy]
        made = [table(7 * seed, *shape) for seed in range(2)]
        order = [sorted(uses, key=lambda use: str(jax.tree.map(np.shape, use))) for uses, _ in made]
        tapes = [tape_with(uses, *shape[1:3]) for uses in order]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *tapes)

        def of_one(tape: Any) -> Any:
            return per_example.norms(tape), per_example.variance(tape)["w"]

        @jax.jit
        def both(stacked: Any) -> Any:
            return jax.vmap(of_one)(stacked), jax.lax.scan(lambda c, tape: (c, of_one(tape)), (), stacked)[1]

        for norms, variances in both(stacked):
            for i, (_, g) in enumerate(made):
                assert gap(norms[i], np.linalg.norm(flat(g), axis=1)) <= EXACT
                assert gap(variances[i], g.var(0)) <= EXACT


@pytest.mark.parametrize("strategy", list(SHAPES)[1:])
def test_an_example_that_is_not_finite_adds_nothing(strategy: str) -> None:
    shape = SHAPES[strategy]
    uses, g = table(0, *shape)
    bare = [use for use in uses if isinstance(use, Lookup)]
    bare[0].delta[2, 0], bare[0].indices[2, 0] = np.inf, 1
    sums, norms = jax.jit(lambda tape: per_example.clipped_grad(tape, 1e3))(tape_with(uses, *shape[1:3], np.float32))
    assert not np.isfinite(norms[2])
    others = np.delete(g, 2, axis=0)
    assert gap(np.delete(norms, 2), np.linalg.norm(flat(others), axis=1)) < 1e-5
    assert gap(sums["w"], others.sum(0)) < 1e-5


def test_where_lookups_cancel_products_the_bound_holds() -> None:
    """Float32: the norm is a number, and what `dp_sgd` clips by is at least the true norm."""
    n, rows, columns, times, positions = 256, 200, 30, 4, 3
    rng = np.random.default_rng(0)
    u, h = np.zeros((n, positions, rows), np.float32), rng.standard_normal((n, positions, columns)).astype(np.float32)
    u[:, :, :times] = rng.standard_normal((n, positions, times))
    rest = 10.0 ** rng.uniform(-9, 0, (n, 1, 1))
    delta = -np.einsum("nsv,nsd->nvd", u[:, :, :times].astype(np.float64), h) * (1 + rest)
    indices = np.broadcast_to(np.arange(times, dtype=np.int32), (n, times))
    tape = tape_with([Lookup(indices, delta.astype(np.float32), rows), Product(u, h)], rows, columns, np.float32)
    assert per_example.plan(tape)[0].strategy == "tied, Gram"

    @jax.jit
    def norms(tape: Any) -> Any:
        found = per_example.norms(tape)
        return found, safe_norms(tape, found)

    found, safe = norms(tape)
    true = np.linalg.norm(flat(_dense(tape, rows, columns)), axis=1)
    assert np.all(np.asarray(found) >= 0)
    assert np.any(np.asarray(found) < 0.5 * true)  # else nothing was cancelled
    assert np.all(np.asarray(safe) >= true)


def recorded(n: int, rows: int, columns: int, times: int, unused: int = 0) -> Any:
    """The shapes of the tape of a tied model, with logits of all rows but the last `unused`."""

    def loss(p: Any, t: Any, y: Any) -> Any:
        z = jnp.tanh(p["e"][t] @ p["w"]) @ p["e"][: rows - unused].T
        return -jnp.sum(jax.nn.log_softmax(z)[jnp.arange(times), y])

    params = {"e": (rows, columns), "w": (columns, columns)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in params.items()}
    t = jax.ShapeDtypeStruct((n, times), jnp.int32)
    return jax.eval_shape(per_example.record(loss), params, t, t)


@pytest.mark.slow
def test_recorded_tables_are_tied() -> None:
    with float64():
        made = make("tied")
        plan = per_example.plan(jax.eval_shape(per_example.record(made.loss), made.params, *made.data))
    assert len(plan) == 9
    assert all(row.strategy.startswith("tied, ") for row in plan), str(plan)


@pytest.mark.parametrize(
    ("statistic", "most"),
    [
        ("norms", 1 / 30),
        pytest.param("clipped_grad", 1 / 3, marks=pytest.mark.slow),  # the logits' cotangents times their weights
        pytest.param("gram", 1 / 3, marks=pytest.mark.slow),
        pytest.param("second_moment", 1 / 2, marks=pytest.mark.slow),  # one example's table, and the sum
        pytest.param("variance", 1 / 2, marks=pytest.mark.slow),
    ],
)
def test_no_table_for_each_example(statistic: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    n, rows, columns, times = 8, 5000, 64, 16
    dense = n * rows * columns * 4
    monkeypatch.setattr(blocks, "CHUNK_BYTES", dense // 2)  # else the batch is small enough to be materialized
    f = getattr(per_example, statistic)
    args = (1.0,) if statistic == "clipped_grad" else ()
    compiled = jax.jit(lambda tape: f(tape, *args)).lower(recorded(n, rows, columns, times)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < most * dense


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["norms", "variance", "gram"])
def test_other_uses_of_a_table_are_materialized_in_chunks(statistic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of all rows but the last: the views of the lookup and of the product overlap."""
    n, rows, columns, times = 8, 5000, 64, 16
    dense = n * rows * columns * 4
    for name in ("CHUNK_BYTES", "OTHER_BYTES"):
        monkeypatch.setattr(blocks, name, dense // 8)
    tape = recorded(n, rows, columns, times, unused=1)
    assert per_example.plan(tape)[0].strategy == "materialize in chunks"
    compiled = jax.jit(lambda tape: getattr(per_example, statistic)(tape)).lower(tape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < dense / 2
