"""Clipped sums by the tape, in two passes and by group, against vmap(grad) in float64; their memory; their plans."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import per_example
from jaxnn.ops import attention
from jaxnn.per_example import clipped_value_and_grad
from jaxnn.per_example.memory import peak_bytes
from jaxnn.per_example.privacy import private
from jaxnn.per_example.streaming import clipping
from tests.backprop.checking import relative
from tests.helpers import float64, slow
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import Made, make
from tests.per_example.streaming.losses import QUICK, hard
from tests.per_example.streaming.oracles import columns_of
from tests.per_example.streaming.test_memory import BLOCKS, WIDTH, B, Shape, T, blocks, plain, temporaries

WAYS: dict[str, dict[str, Any]] = {
    "two passes": {"passes": 2},
    "default": {},
    "tape": {"passes": 1},
    "much memory": {"memory": 2**40},
    "little memory": {"memory": 1},
}
WEIGHTS = np.array([1.0, 0.0, -2.0, 0.5, 3.0])


def batch_of(made: Made) -> tuple[Any, ...]:
    """The first 5 examples."""
    return jax.tree.map(lambda x: x[:5], made.data)


def gradients(made: Made) -> tuple[Any, np.ndarray]:
    """The batch, and the materialized gradients (N, P)."""
    data = batch_of(made)
    return data, flat(jax.vmap(jax.grad(made.loss), (None, *(0 for _ in data)))(made.params, *data))


def scaled(g: np.ndarray, bound: float) -> np.ndarray:
    """min(1, C / |g_i|) g_i of rows."""
    n = np.linalg.norm(g, axis=1, keepdims=True)
    return g * np.minimum(1.0, bound / np.maximum(n, 1e-300))


def total_gap(total: Any, expected: np.ndarray) -> float:
    return gap(vector(total), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    [
        QUICK[0],
        pytest.param("positions in a loop", marks=pytest.mark.slow),
        pytest.param("twice in the body", marks=pytest.mark.slow),
    ],
)
def test_flat_clipping(name: str, way: str) -> None:
    with float64():
        made = hard(name)
        data, g = gradients(made)
        bound = float(np.median(np.linalg.norm(g, axis=1)))
        run = jax.jit(clipped_value_and_grad(made.loss, bound, **WAYS[way]))
        (losses, norms), total = run(made.params, *data)
        assert gap(losses, jax.vmap(made.loss, (None, 0))(made.params, *data)) <= EXACT
        assert gap(norms, np.linalg.norm(g, axis=1)) <= EXACT
        assert total_gap(total, scaled(g, bound).sum(0)) <= EXACT
        weighted = WEIGHTS[:, None] * g
        (_, norms), total = run(made.params, *data, weights=jnp.asarray(WEIGHTS))
        assert gap(norms, np.linalg.norm(weighted, axis=1)) <= EXACT
        assert total_gap(total, scaled(weighted, bound).sum(0)) <= EXACT


@pytest.mark.parametrize("passes", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_by_parameter(passes: int | None) -> None:
    """Every slice of a scanned stack is a group of its own in one pass; the stack is one group in two."""
    with float64():
        made = hard("factor ahead of a loop")  # uses "three", in three slices, alone
        data, g = gradients(made)
        columns = columns_of(made.params)
        clipped = clipped_value_and_grad(made.loss, 2.0, groups="parameter", passes=passes)
        (_, norms), total = jax.jit(clipped)(made.params, *data)
        slices = 3 if passes is None else 1
        bound = 2.0 / np.sqrt(len(columns) - 1 + slices)
        for path, place in columns.items():
            own = g[:, place]
            if not own.size:
                continue
            assert gap(norms[path], np.linalg.norm(own, axis=1)) <= EXACT
            parts = np.split(own, slices, axis=1) if "three" in path else [own]
            expected = np.concatenate([scaled(part, bound) for part in parts], axis=1).sum(0)
            got = vector({path: dict(zip(columns, jax.tree.leaves(total), strict=True))[path]})
            assert gap(got, expected) <= EXACT


@pytest.mark.parametrize("name", ["mlp", pytest.param("tied", marks=pytest.mark.proof)])
def test_by_groups(name: str) -> None:
    with float64():
        made = make(name)
        data, g = gradients(made)
        columns = columns_of(made.params)
        paths = list(columns)
        groups = {"first": paths[:1], "others": paths[1:]}
        bounds = {"first": 0.5, "others": per_example.automatic(2.0)}
        clipped = clipped_value_and_grad(made.loss, bounds, groups=groups)
        (_, norms), total = jax.jit(clipped)(made.params, *data)
        first = np.zeros(g.shape[1], bool)
        first[columns[paths[0]]] = True
        sizes = np.linalg.norm(g[:, ~first], axis=1)
        expected = scaled(g * first, 0.5).sum(0) + ((2.0 / (sizes + 0.01))[:, None] * (g * ~first)).sum(0)
        assert gap(norms["others"], sizes) <= EXACT
        assert total_gap(total, expected) <= EXACT


@pytest.mark.parametrize("way", ["two passes", "tape", "groups"])
def test_an_infinite_gradient_adds_nothing(way: str) -> None:
    def loss(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.log(x @ p["w"]) * p["v"])

    params = {"w": np.ones((3, 2), np.float32), "v": np.ones(2, np.float32)}
    x = np.random.default_rng(0).uniform(1, 2, (4, 3)).astype(np.float32)
    x[2] = 0.0
    options = {"groups": "parameter"} if way == "groups" else WAYS[way]
    run = jax.jit(clipped_value_and_grad(loss, 1.0, **options))
    (_, norms), total = run(params, x)
    (_, _), kept = run(params, np.delete(x, 2, axis=0))
    assert not np.isfinite(vector(jax.tree.map(lambda n: n[2:3], norms))).all()
    assert gap(vector(total), vector(kept)) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"groups": "parameter"}])
def test_the_bound_may_be_traced(options: dict[str, Any]) -> None:
    made = hard(QUICK[0])
    data = batch_of(made)

    def total(bound: Any) -> Any:
        return clipped_value_and_grad(made.loss, bound, **options)(made.params, *data)[1]

    many = jax.jit(jax.vmap(total))(jnp.array([0.1, 1.0]))
    assert gap(vector(jax.tree.map(lambda x: x[0], many)), vector(jax.jit(total)(0.1))) <= 1e-5


def test_options_of_record() -> None:
    def loss(scale: Any, x: Any, params: Any) -> Any:
        value = jnp.sum(jnp.tanh(x @ params["w"]) * scale)
        return value, {"outputs": x @ params["w"]}

    params = {"w": np.ones((3, 2), np.float32), "frozen": np.ones(2, np.float32)}
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for passes in (1, 2):
        clipped = clipped_value_and_grad(
            loss, 0.5, passes=passes, argnums=2, in_axes=(None, 1, None), has_aux=True,
            trainable={"w": True, "frozen": False},
        )  # fmt: skip
        (losses, norms, aux), total = clipped(np.float32(2.0), x, params)
        assert losses.shape == norms.shape == (4,)
        assert aux["outputs"].shape == (4, 2)
        assert total["frozen"] is None
        assert np.linalg.norm(vector(total)) <= 4 * 0.5 * (1 + 1e-6)


def test_memory_of_two_passes() -> None:
    """One pass by parameter within 1.05 of the gradient, by the compiler's account; two passes within 1.35: XLA holds
    the activations that the loops of both passes save."""
    x = Shape((B, T, WIDTH), jnp.float32)
    unit = temporaries(plain(blocks), BLOCKS, x)
    assert temporaries(clipped_value_and_grad(blocks, 1.0), BLOCKS, x) <= 1.35 * unit
    assert temporaries(clipped_value_and_grad(blocks, 1.0, groups="parameter"), BLOCKS, x) <= 1.05 * unit


@pytest.mark.slow
def test_bytes_from_shapes_beside_the_compiler() -> None:
    """`memory=` decides by the jaxpr, in which nothing is fused: 1 to 4 times what the compiler takes."""
    x = Shape((B, T, WIDTH), jnp.float32)
    for way in ({"passes": 1}, {"passes": 2}):
        run = clipped_value_and_grad(blocks, 1.0, **way)
        by_shapes, compiled = peak_bytes(run, BLOCKS, x), temporaries(run, BLOCKS, x)
        assert 1.0 <= by_shapes / compiled <= 4.0, (way, by_shapes, compiled)


def meta_gap(name: str, options: dict[str, Any]) -> float:
    """How far the derivative of a function of losses, norms and the sum is from that of the same by vmap(grad)."""
    made = make(name)
    data, grouped = batch_of(made), "groups" in options
    axes = (None, *(0 for _ in data))

    def of(losses: Any, norms: Any, total: Any) -> Any:
        squares = sum(jnp.sum(jnp.sin(x) ** 2) for x in jax.tree.leaves((norms, total)))
        return squares + jnp.sum(losses**2)

    def ours(params: Any) -> Any:
        (losses, norms), total = clipped_value_and_grad(made.loss, 0.3, **options)(params, *data)
        return of(losses, norms, total)

    def explicit(params: Any) -> Any:
        each = jax.vmap(jax.grad(made.loss), axes)(params, *data)
        squares = [jnp.sum(g.reshape(len(g), -1) ** 2, axis=1) for g in jax.tree.leaves(each)]
        norms = [jnp.sqrt(x) for x in squares] if grouped else [jnp.sqrt(sum(squares))]
        bound = 0.3 / (len(squares) if grouped else 1) ** 0.5
        factors = [jnp.minimum(1, bound / n) for n in norms] * (1 if grouped else len(squares))
        total = [jnp.tensordot(c, g, 1) for c, g in zip(factors, jax.tree.leaves(each), strict=True)]
        return of(jax.vmap(made.loss, axes)(params, *data), norms, total)

    found, expected = jax.jit(lambda params: (jax.grad(ours)(params), jax.grad(explicit)(params)))(made.params)
    return gap(vector(found), vector(expected))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        *slow(
            ("mlp", {"passes": 1}),
            ("mlp", {"groups": "parameter"}),
            ("mlp", {"groups": "parameter", "passes": 2}),
            ("scanned_blocks", {}),
            ("tied", {}),
            ("joined", {}),
            ("pointwise", {}),
        ),
    ],
)
def test_the_derivative_of_a_clipped_sum(name: str, options: dict[str, Any]) -> None:
    """By the parameters: nothing of the passes is taken for constant."""
    with float64():
        assert meta_gap(name, options) <= EXACT


@pytest.mark.parametrize("passes", [1, 2])
def test_aux_of_a_removed_example_is_0(passes: int) -> None:
    clipped = clipped_value_and_grad(lambda w, x: (jnp.vdot(w, x), {"x": x}), 1.0, has_aux=True, passes=passes)
    x = np.array([[1.0, 2.0], [np.nan, 5.0]], np.float32)
    (losses, norms, aux), total = clipped(np.ones(2, np.float32), x, weights=np.array([1.0, 0.0], np.float32))
    assert np.array_equal(aux["x"], [[1, 2], [0, 0]])
    assert np.isfinite([*losses, *norms, *total]).all()


def test_microbatches_add_up() -> None:
    with float64():
        made = make("mlp")
        data = batch_of(made)

        @jax.jit
        def both(params: Any, data: Any) -> Any:
            clipped = clipped_value_and_grad(made.loss, 1.0)
            sums, rows = per_example.over_microbatches(lambda *batch: clipped(params, *batch)[::-1], data, 2)
            return (rows, sums), clipped(params, *data)

        assert relative(*both(made.params, data)) <= EXACT


def test_plans() -> None:
    x = Shape((B, T, WIDTH), jnp.float32)
    rows = per_example.plan(per_example.value_and_grad(blocks), BLOCKS, x)
    assert [row.path for row in rows] == ["['b']", "['d']", "['u']"]
    assert all(row.strategy.startswith("streamed: ") for row in rows)
    two = per_example.plan(clipped_value_and_grad(blocks, 1.0), BLOCKS, x)
    one = per_example.plan(clipped_value_and_grad(blocks, 1.0, memory=2**40), BLOCKS, x)
    assert two.way.startswith("2 passes; ")
    assert one.way.startswith("1 pass by the tape; ")
    assert str(one).startswith(one.way)

    def shared(p: Any, x: Any) -> Any:
        h = lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x, None, length=3)[0]
        return jnp.sum(h @ jnp.exp(p["e"])) + jnp.sum(x @ p["s"])

    params = {name: Shape((4, 4), jnp.float32) for name in ("e", "s", "w")}
    found = per_example.plan(per_example.value_and_grad(shared), params, Shape((5, 4), jnp.float32))
    assert [row.strategy for row in found] == [
        "materialized (exp)",
        "streamed: norm product",
        "taped: materialize in chunks",
    ]
    compiled = per_example.plan(jax.jit(per_example.value_and_grad(shared)), params, Shape((5, 4), jnp.float32))
    assert compiled == found
    recorder = per_example.record(shared)
    args = (params, Shape((5, 4), jnp.float32))
    assert per_example.plan(recorder, *args) == per_example.plan(jax.eval_shape(recorder, *args))
    with pytest.raises(TypeError, match=r"plan: expected a Tape, or value_and_grad.* got <function blocks"):
        per_example.plan(blocks)  # type: ignore[arg-type]


@pytest.mark.parametrize("microbatch", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_private_gradients_in_two_passes(microbatch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sums, norms and losses as by the tape, weights and padding included."""
    with float64():
        made = hard("loops in loops")
        data = jax.tree.map(lambda x: x[:4], made.data)
        weights = jnp.array([1.0, 0.0, 0.5, 1.0])
        found = []
        for by_tape in (True, False):
            monkeypatch.setattr(private, "stored", lambda *args, by_tape=by_tape: by_tape)
            gradient = per_example.private_grad(
                per_example.record(made.loss), clip=0.3, noise_multiplier=0.0, batch_size=4, microbatch_size=microbatch
            )
            found.append(jax.jit(gradient)(made.params, *data, key=jax.random.key(0), weights=weights))
    assert gap(vector(found[1]), vector(found[0])) <= EXACT


@pytest.mark.slow
def test_private_gradients_where_a_tape_takes_more() -> None:
    """A scanned, rematerialized stack: its private step has no tape; without `checkpoint` it has one."""
    x = Shape((B, T, WIDTH), jnp.float32)
    recorder = per_example.record(blocks)
    assert not clipping.stored(recorder, (BLOCKS, x))
    assert clipping.stored(
        per_example.record(lambda p, x: jnp.sum(jnp.tanh(x @ p) ** 2)),
        (Shape((64, 8), jnp.float32), Shape((5, 64), jnp.float32)),
    )
    gradient = per_example.private_grad(recorder, clip=1.0, noise_multiplier=1.0, batch_size=B)
    key = jax.eval_shape(lambda: jax.random.key(0))
    taken = temporaries(lambda p, x, key: gradient(p, x, key=key), BLOCKS, x, key)
    assert taken <= 1.7 * temporaries(plain(blocks), BLOCKS, x)  # the tape takes 7 times


@pytest.mark.slow
def test_no_contribution_exceeds_the_bound() -> None:
    """bfloat16 parameters and positions that cancel: each example alone adds at most C."""
    rng = np.random.default_rng(1)
    half = rng.standard_normal((6, 8, 16)).astype(np.float32)
    x = jnp.asarray(np.concatenate([half, -half * (1 + 1e-3)], axis=1), jnp.bfloat16)
    params = jnp.asarray(rng.standard_normal((3, 16, 16)) * 0.1, jnp.bfloat16)

    def loss(ws: Any, x: Any) -> Any:
        h = lax.scan(jax.checkpoint(lambda h, w: (h + 0.01 * (h @ w), None)), x, ws)[0]
        return jnp.sum(h.astype(jnp.float32))

    wide = jax.jit(lambda p, x: clipping.bounded_sums(per_example.record(loss), (p, x), per_example.flat(1e-3))[1])
    for i in range(len(x)):
        assert np.linalg.norm(vector(wide(params, x[i : i + 1]))) <= 1e-3 * (1 + 2e-6)


@pytest.mark.parametrize(
    ("clip", "options", "error", "message"),
    [
        (1.0, {"passes": 3}, ValueError, r"clipped_value_and_grad: expected passes=1 or 2"),
        (1.0, {"passes": 1, "memory": 10}, ValueError, r"or memory in bytes, got passes=1, memory=10"),
        (1.0, {"memory": 0}, ValueError, r"clipped_value_and_grad: memory"),
        ({"a": 1.0}, {}, TypeError, r"a mapping of bounds needs groups"),
        (per_example.flat(1.0), {"groups": "parameter"}, TypeError, r"one number C or a mapping from groups"),
        ({"a": 1.0}, {"groups": "parameter"}, ValueError, r"expected a bound for each of the groups"),
        (1.0, {"groups": {"a": "['w']"}}, ValueError, r"groups must hold every parameter, got none with"),
        (1.0, {"groups": {"a": "['z']"}}, ValueError, r"clipped_value_and_grad: no parameter has a path"),
        (1.0, {"groups": {"a": ["['w']", "['v']"]}, "passes": 1}, ValueError, r"in one pass a group is one parameter"),
        (-1.0, {}, ValueError, r"bound"),
        (per_example.flat, {}, TypeError, r"flat\(C\)"),
        (None, {"groups": "parameter"}, TypeError, r"clip must be a real number, got None"),
        ({"['v']": 1.0, "['w']": "1"}, {"groups": "parameter"}, TypeError, r"clip must be a real number, got '1'"),
        (-1.0, {"groups": "layer"}, ValueError, r"clip must lie in \[0, inf\]"),
    ],
)  # fmt: skip
def test_misuse(clip: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    params = {"w": np.ones((3, 2), np.float32), "v": np.ones(2, np.float32)}

    def run() -> Any:
        clipped = clipped_value_and_grad(lambda p, x: jnp.sum(x @ p["w"] * p["v"]), clip, **options)
        return jax.eval_shape(clipped, params, np.ones((4, 3), np.float32))

    with pytest.raises(error, match=message):
        run()


@pytest.mark.parametrize("options", [{"passes": 1}, {"passes": 2}, {"memory": 2**40}, {"groups": "layer"}])
def test_bad_batches_are_named_by_every_way(options: dict[str, Any]) -> None:
    """The function that was called, not the recorder that it shares."""
    params = {"w": np.ones((3, 2), np.float32)}
    clipped = clipped_value_and_grad(lambda p, x, y: jnp.sum(x @ p["w"]) * y, 1.0, **options)
    for x, y, weights, message in (
        (np.ones((4, 3)), np.ones(5), None, "all arguments must have the same number of examples"),
        (np.ones((0, 3)), np.ones(0), None, "expected a batch of at least 1 example"),
        (np.ones((4, 3)), np.ones(4), np.ones(3), "expected one weight for each of 4 examples"),
    ):
        with pytest.raises(ValueError, match=f"^clipped_value_and_grad: {message}"):
            clipped(params, x.astype(np.float32), y.astype(np.float32), weights=weights)


@pytest.mark.slow
@pytest.mark.parametrize("block", [2, 256])
@pytest.mark.parametrize("name", ["decoder", "decoder, stacked", "encoder", "encoder, stacked"])
def test_flat_clipping_of_transformers(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their attention over one block of queries, and over several in a loop."""
    monkeypatch.setitem(attention.attend.__kwdefaults__, "block", block)
    with float64():
        made = make(name)
        data, g = gradients(made)
        bound = float(np.median(np.linalg.norm(g, axis=1)))
        (_, norms), total = jax.jit(clipped_value_and_grad(made.loss, bound))(made.params, *data)
        tape = jax.jit(per_example.record(made.loss))(made.params, *data)
        assert gap(norms, np.linalg.norm(g, axis=1)) <= EXACT
        assert gap(per_example.norms(tape), np.linalg.norm(g, axis=1)) <= EXACT
        assert total_gap(total, scaled(g, bound).sum(0)) <= EXACT
