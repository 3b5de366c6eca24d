"""Output layers in chunks: tapes and streamed passes of `chunked_softmax_cross_entropy` against vmap(grad)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import losses, per_example
from jaxnn.losses import logits as arithmetic
from jaxnn.per_example import Margin, Projection, SqNorms, recording, streaming
from jaxnn.per_example.recording import softmax as recorded
from jaxnn.per_example.streaming import softmax as streamed
from jaxnn.tape import Placed, SoftmaxProduct
from tests.helpers import assert_close, float64, slow, strict
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import CENTRED, EXACT, STATISTICS, Given
from tests.per_example.recording.losses import Drawn, Made, N
from tests.per_example.recording.test_statistics import gaps as gaps_of_tape
from tests.per_example.streaming import oracles

T, D, V = 4, 3, 11
CHUNK = 4  # V is no multiple of it

Loss = Callable[..., Any]


def one(loss: Loss, h: Any, w: Any, y: Any, **options: Any) -> Any:
    """The loss of one example."""
    return loss(h[None], w, y[None], **options)[0]


def plain(a: Any, w: Any, y: Any, *, b: Any = None, class_axis: int = 1, **options: Any) -> Any:
    """The same from logits."""
    z = a @ (w if class_axis == 1 else w.T)
    return losses.softmax_cross_entropy(z if b is None else z + b, y, **options)


def hidden(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["in"])


def _matrix(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    return one(ce, hidden(p, x), p["w"], y)


def _table(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    options = {"b": p["b"], "label_smoothing": 0.1, "ignore_index": 2}
    return one(ce, hidden(p, x), p["table"], y, class_axis=0, **options)


def _views(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    """A matrix transposed, scaled and reshaped; a scaled bias; the loss scaled."""
    w = (-2.0 * p["table"]).T.reshape(D * V).reshape(D, V)
    return 3 * one(ce, hidden(p, x), w, y, b=p["b"] / 2)


def _loops(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    """A matrix for each iteration, and one that all share, in rematerialized bodies."""

    @jax.checkpoint
    def of_slice(total: Any, w: Any) -> Any:
        return total + one(ce, hidden(p, x), 0.5 * w, y), None

    @jax.jit
    def of_block(total: Any, block: Any) -> Any:
        return total + jax.checkpoint(functools.partial(one, ce))(block[0], p["w"], block[1]), None

    blocks = hidden(p, x).reshape(2, T // 2, D), y.reshape(2, T // 2)
    return lax.scan(of_slice, jnp.zeros(()), p["stack"])[0] + lax.scan(of_block, jnp.zeros(()), blocks)[0]


def _tied(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    """The table looked up and multiplied, as it is and transposed."""
    h = jnp.tanh(p["table"][y] + x @ p["in"])
    return one(ce, h, p["table"], (y + 1) % V, class_axis=0) + one(ce, p["other"][y], p["other"].T, y)


def _twice(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    """One matrix in two layers, one of them without chunks."""
    h = hidden(p, x)
    return one(ce, h, p["w"], y) + one(ce, jnp.sin(h), p["w"], y) + jnp.mean(jnp.tanh(h @ p["w"]))


def _of_positions(ce: Loss, p: Any, x: Any, y: Any) -> Any:
    """A vmap inside: no rule."""
    return jnp.mean(jax.vmap(lambda h, y: one(ce, h, p["w"], y))(hidden(p, x), y))


PROGRAMS: dict[str, tuple[Loss, str]] = {
    "matrix": (_matrix, "in w"),
    "table, bias, smoothing, ignored positions": (_table, "in table b"),
    "views": (_views, "in table b"),
    "loops": (_loops, "in stack w"),
    "tied": (_tied, "in table other"),
    "twice": (_twice, "in w"),
    "vmap inside": (_of_positions, "in w"),
    "one position": (lambda ce, p, x, y: one(ce, hidden(p, x[0]), p["w"], y[0]), "in w"),
    "data as inputs": (lambda ce, p, x, y: one(ce, x[:, :D], p["w"], y, b=p["b"]), "w b"),
    "bias alone": (lambda ce, p, x, y: one(ce, x[:, :D], jnp.ones((D, V), x.dtype), y, b=p["b"]), "b"),
    "the example's own bias": (lambda ce, p, x, y: one(ce, hidden(p, x), p["w"], y, b=jnp.resize(x, V)), "in w"),
}
"""Each with the names of its parameters."""

chunked = functools.partial(losses.chunked_softmax_cross_entropy, chunk=CHUNK)


def made(name: str, n: int = N, loss: Loss = chunked) -> Made:
    r, (program, names) = Drawn(0), PROGRAMS[name]
    shapes = {"in": (5, D), "w": (D, V), "b": (V,), "table": (V, D), "other": (V, D), "stack": (2, D, V)}
    params = {key: 2 * r(*shapes[key]) for key in names.split()}
    return Made(functools.partial(program, loss), params, (r(n, T, 5), r.integers(V, n, T)))


QUICK = ["table, bias, smoothing, ignored positions", "loops"]
SELECTED = [*QUICK, *slow(*(name for name in PROGRAMS if name not in QUICK))]
FEW = ["sq_norms", "clipped_grad", "variance", "gram, two batches", "jvp_examples", "materialize"]


@pytest.mark.parametrize("name", SELECTED)
def test_statistics_of_a_tape(name: str) -> None:
    with float64():
        found = gaps_of_tape(made(name, 2 * N), FEW if name in QUICK else list(STATISTICS))
    assert max(found.values()) <= EXACT, found


@pytest.mark.parametrize("name", SELECTED)
def test_streamed_statistics(name: str) -> None:
    with float64():
        found = oracles.gaps(made(name))
    assert oracles.worst(found) <= EXACT, found


@pytest.mark.parametrize("name", SELECTED)
def test_gradients_are_those_of_the_logits(name: str) -> None:
    """The oracle of the tests above differentiates the chunked loss itself."""

    def each(given: Made) -> Any:
        return jax.jit(jax.vmap(jax.value_and_grad(given.loss), (None, 0, 0)))(given.params, *given.data)

    with float64():
        assert_close(each(made(name)), each(made(name, loss=plain)), rtol=1e-10, atol=1e-12)


def uses_of(name: str) -> dict[str, list[str]]:
    given = made(name)
    tape = jax.eval_shape(per_example.record(given.loss), given.params, *given.data)
    plain = [[use.use if isinstance(use, Placed) else use for use in uses] for uses in tape.uses]
    return {path: [type(use).__name__ for use in uses] for path, uses in zip(tape.paths, plain, strict=True)}


@pytest.mark.slow
def test_which_uses_form_no_logits() -> None:
    head = SoftmaxProduct.__name__
    assert uses_of("matrix") == {"['in']": ["Product"], "['w']": [head]}
    assert uses_of("views") == {"['b']": ["Whole"], "['in']": ["Product"], "['table']": [head]}
    assert uses_of("loops")["['w']"] == [head]
    assert uses_of("tied")["['table']"] == ["Lookup", head]
    assert uses_of("vmap inside")["['w']"] == ["Whole"]
    assert uses_of("loops")["['stack']"] == ["Whole"]  # a loop over matrices
    assert plan_of("matrix")["['w']"].strategy.startswith("streamed: by chunks")
    assert plan_of("loops")["['w']"].uses == "softmax product"
    assert plan_of("loops")["['w']"].strategy.startswith("taped: by chunks")
    assert plan_of("tied")["['table']"].strategy.startswith("taped: by chunks, tied")
    assert "by chunks" not in plan_of("tied")["['other']"].strategy


def plan_of(name: str) -> dict[str, Any]:
    given = made(name)
    found = per_example.plan(per_example.value_and_grad(given.loss), given.params, *given.data)
    return {row.path: row for row in found}


@pytest.mark.slow
def test_clipped_sums() -> None:
    """In two passes, by the tape, and with a factor for each parameter in one pass."""
    with float64():
        given = made("views")
        each = jax.jit(jax.vmap(jax.grad(given.loss), (None, 0, 0)))(given.params, *given.data)
        norms = np.linalg.norm(flat(each), axis=1)
        bound = float(np.median(norms))

        def clipped(**options: Any) -> Any:
            clip = options.pop("clip", bound)
            return jax.jit(per_example.clipped_value_and_grad(given.loss, clip, **options))(given.params, *given.data)[
                1
            ]

        expected = jax.tree.map(lambda g: np.tensordot(np.minimum(1, bound / norms), g, 1), each)
        for found in (clipped(), clipped(passes=1)):
            assert_close(found, expected, rtol=1e-9, atol=1e-12)
        bounds = {f"[{key!r}]": bound / 2 for key in given.params}

        def by_itself(g: Any) -> Any:
            return np.tensordot(np.minimum(1, bound / 2 / np.linalg.norm(np.reshape(g, (N, -1)), axis=1)), g, 1)

        found = clipped(clip=bounds, groups="parameter")
        assert_close(found, jax.tree.map(by_itself, each), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_rows_of_weight_0_and_derivatives_of_a_pass() -> None:
    """Padding that is NaN adds nothing; derivatives of the norms are those of explicit gradients' norms."""
    with float64():
        given = made("table, bias, smoothing, ignored positions")
        x, y = given.data
        weights = np.array([1.0, 0.0, 2.0, -0.5, 1.0])
        bad = np.where(np.arange(N)[:, None, None] == 1, np.nan, x)
        vg = per_example.value_and_grad(given.loss)

        def squares(p: Any) -> Any:
            return jnp.sum(jnp.sin(vg(p, bad, y, weights=weights)[0][1]))

        def oracle(p: Any) -> Any:
            each = jax.vmap(jax.grad(given.loss), (None, 0, 0))(p, x, y)
            rows = jnp.concatenate([g.reshape(N, -1) for g in jax.tree.leaves(each)], 1)
            return jnp.sum(jnp.sin(weights**2 * jnp.sum(rows**2, 1)))

        found, expected = (jax.jit(jax.value_and_grad(f))(given.params) for f in (squares, oracle))
        assert_close(found, expected, rtol=1e-9, atol=1e-11)
        tape = jax.jit(per_example.record(given.loss))(given.params, bad, y, weights=weights)
        assert_close(jnp.sum(jnp.sin(per_example.sq_norms(tape))), expected[0], rtol=1e-10)


@pytest.mark.slow
def test_centred_variance_margin_and_projections() -> None:
    with float64():
        given = made("one position")
        tape = jax.jit(per_example.record(given.loss))(given.params, *given.data)
        g = flat(jax.vmap(jax.grad(given.loss), (None, 0, 0))(given.params, *given.data))
        assert gap(vector(CENTRED.ours(Given(tape, None, None, None, None))), np.var(g, 0, ddof=1)) <= EXACT
        given, keys = made("matrix"), jax.random.split(jax.random.key(0), 300)

        @jax.jit
        def of(p: Any, *data: Any) -> Any:
            def products(key: Any) -> Any:
                rows = per_example.value_and_grad(given.loss, Projection(key, 12))(p, *data)[0][1]
                return rows @ rows.T

            sizes = per_example.value_and_grad(given.loss, (Margin(), SqNorms()))(p, *data)[0][1]
            each = jax.vmap(jax.grad(given.loss), (None, 0, 0))(p, *data)
            return jax.vmap(products)(keys), sizes, each

        products, (margin, squares), each = of(given.params, *given.data)
        g = flat(each)
        error = np.abs(products.mean(0) - g @ g.T) / (np.asarray(products).std(0) / np.sqrt(len(keys)))
        assert error.max() < 4
        assert (margin >= np.sqrt(squares) * (1 - 1e-12)).all()


class Largest(per_example.Statistic):
    """The largest entry of each parameter's gradient, which is no sum over chunks, and the sum of fourth powers."""

    def __init__(self, summed: bool) -> None:
        self.summed = summed

    def prepare(self, param: Any, params: Any) -> Any:
        return per_example.Part(param.path, None if self.summed else ())

    def of_use(self, gradients: Any, part: Any) -> Any:
        rows = gradients.materialized
        return jnp.sum(rows**4, 0).reshape(gradients.leaf.shape) if self.summed else jnp.max(rows, 1)

    def combine(self, found: Any, batch: Any) -> Any:
        return batch.like_params(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["views", *slow("matrix", "twice")])
def test_statistics_of_ones_own_see_all_classes(name: str) -> None:
    with float64():
        given = made(name)
        vg = per_example.value_and_grad(given.loss, (Largest(False), Largest(True)))
        (_, found), _ = jax.jit(vg)(given.params, *given.data)
        each = jax.vmap(jax.grad(given.loss), (None, 0, 0))(given.params, *given.data)
        most = jax.tree.map(lambda g: jnp.max(g.reshape(N, -1), 1), each)
        assert_close(found, (most, jax.tree.map(lambda g: jnp.sum(g**4, 0), each)), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", *slow("float16", "float32")])
def test_half_precision(dtype: str) -> None:
    """Products of half-precision operands, sums in float32: as the same numbers in float64, to a rounding of delta."""
    given = made("matrix")
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), given.params)
    x, y = jnp.asarray(given.data[0], dtype), given.data[1]
    with strict():
        (each, squares), grads = jax.jit(per_example.value_and_grad(given.loss))(params, x, y)
        tape = jax.jit(per_example.record(given.loss))(params, x, y)
        by_tape = jax.jit(per_example.sq_norms)(tape)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads)} == {dtype}
    assert each.dtype == squares.dtype == by_tape.dtype == jnp.float32

    def head(p: Any, h: Any, y: Any) -> Any:
        return one(chunked, h, p, y)

    h = jax.jit(hidden)(params, x)
    (_, of_head), total = jax.jit(per_example.value_and_grad(head))(params["w"], h, y)
    with float64():
        wide = jax.vmap(jax.grad(head), (None, 0, 0))(*(np.asarray(v, np.float64) for v in (params["w"], h)), y)
        eps = float(jnp.finfo(dtype).eps)
        assert_close(of_head, np.sum(np.square(wide), (1, 2)), rtol=2 * eps)
        assert_close(total, np.sum(wide, 0), rtol=4 * eps, atol=4 * eps * float(np.abs(wide).max()))


def temporaries(f: Any, *args: Any) -> int:
    jax.config.update("jax_disable_most_optimizations", False)  # the fixture of the folder sets it back
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_no_logits_are_in_memory() -> None:
    shapes = {"in": (64, 64), "w": (64, 4096)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    x, y = jax.ShapeDtypeStruct((8, 64, 64), jnp.float32), jax.ShapeDtypeStruct((8, 64), jnp.int32)
    logits = 8 * 64 * 4096 * 4

    def loss(p: Any, x: Any, y: Any) -> Any:
        return one(functools.partial(losses.chunked_softmax_cross_entropy, chunk=512), hidden(p, x), p["w"], y)

    def by_tape(p: Any, x: Any, y: Any) -> Any:
        tape = per_example.record(loss)(p, x, y)
        return per_example.clipped_grad(tape, 1.0)

    assert temporaries(by_tape, params, x, y) < logits
    assert temporaries(per_example.value_and_grad(loss), params, x, y) < logits
    assert temporaries(per_example.record(loss), params, x, y) < logits
    table = {"in": params["in"], "table": jax.ShapeDtypeStruct((4096, 64), jnp.float32)}

    def tied(p: Any, x: Any, y: Any) -> Any:
        h = jnp.tanh((x + p["table"][y]) @ p["in"])
        return one(functools.partial(losses.chunked_softmax_cross_entropy, chunk=512), h, p["table"], y, class_axis=0)

    assert temporaries(per_example.value_and_grad(tied), table, x, y) < logits
    without = functools.partial(one, plain)
    assert temporaries(jax.vmap(lambda p, x, y: without(hidden(p, x), p["w"], y), (None, 0, 0)), params, x, y) >= logits


def _without_scale(right: Any, equation: Any, at: int, param: Any, seen: Any, delta: Any) -> Any:
    return dataclasses.replace(right(equation, at, param, seen, delta), delta=jnp.ones_like(delta))


def _overwritten(logits: Any, whole: Any, part: Any, c: Any, axis: int) -> Any:
    return lax.dynamic_update_slice_in_dim(whole, part, logits.start(c), axis % whole.ndim)


def _rule(patch: pytest.MonkeyPatch, **fields: Any) -> None:
    """A broken rule in place of the right one."""
    broken = recorded.SOFTMAX_PRODUCT._replace(**fields)
    for module in (recording.rules, streaming.running):
        patch.setattr(module, "SOFTMAX_PRODUCT", broken)


MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[str], None]]] = {
    "cotangents of the losses taken to be 1": (
        lambda patch: _rule(patch, use=functools.partial(_without_scale, recorded.SOFTMAX_PRODUCT.use)),
        test_statistics_of_a_tape,
    ),
    "classes of the last chunk counted twice": (
        lambda patch: patch.setattr(arithmetic.Logits, "fresh", lambda self, c, like: jnp.ones(like.shape, bool)),
        test_gradients_are_those_of_the_logits,
    ),
    "chunks that overwrite": (
        lambda patch: patch.setattr(streamed, "put", _overwritten),
        test_streamed_statistics,
    ),
    "a bias without cotangent": (
        lambda patch: patch.setattr(streamed, "bias_grad", lambda *args: 0 * arithmetic.bias_grad(*args)),
        test_streamed_statistics,
    ),
    "one chunk's cotangent of the inputs": (
        lambda patch: patch.setattr(
            streamed, "input_grad", lambda logits, delta, c: (c == 0) * arithmetic.input_grad(logits, delta, c)
        ),
        test_streamed_statistics,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_variants_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, test = MUTANTS[name]
    breaks(monkeypatch)
    with pytest.raises(AssertionError):
        test(QUICK[0])
