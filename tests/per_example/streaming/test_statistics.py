"""Losses of many libraries, and losses that are hard to stream: every statistic against vmap(grad), in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example import Margin, SqNorms, Statistic
from jaxnn.per_example.forms import explicit
from jaxnn.per_example.margin import ROUNDINGS, safe_norms
from jaxnn.per_example.streaming.statistic import Part
from tests.helpers import float64
from tests.per_example.cases import flat, gap, vector
from tests.per_example.oracles import EXACT
from tests.per_example.recording.losses import LOSSES, Drawn, make
from tests.per_example.streaming.losses import HARD, QUICK, hard
from tests.per_example.streaming.oracles import STATISTICS, WEIGHTED, columns_of, gaps, worst

WEIGHTS = np.array([1.0, 0.0, -2.0, 0.5, 3.0])
FEW = ["sq_norms", "second_moment", "directional"]
NORMS = ["sq_norms"]
TRANSFORMERS = ("decoder", "decoder, stacked", "encoder", "encoder, stacked")
IN_QUICK, IN_SLOW = ("mlp", "fallbacks"), ("scanned_blocks", "views", "joined", "tied", "attention", *TRANSFORMERS)
LIBRARIES = ("flax transformer", "nnx cnn", "equinox gru", "haiku recurrent")


def ranked(names: Any, quick: tuple[str, ...], some: tuple[str, ...]) -> list[Any]:
    """Cases: those in `quick` always, those in `some` in the slow tier, the others as proof."""
    marks = {name: () if name in quick else pytest.mark.slow if name in some else pytest.mark.proof for name in names}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


@pytest.mark.parametrize("name", ranked(LOSSES, IN_QUICK, IN_SLOW))
def test_every_statistic(name: str) -> None:
    with float64():
        found = gaps(make(name), list(STATISTICS))
    assert worst(found) <= EXACT, found


@pytest.mark.parametrize("name", ranked(LOSSES, (), LIBRARIES))
def test_norms_alone(name: str) -> None:
    """What the statistics need together decides how each is computed."""
    with float64():
        found = gaps(make(name), NORMS)
    assert worst(found) <= EXACT, found


@pytest.mark.parametrize("name", ranked(LOSSES, ("mlp",), ("fallbacks", "scanned_blocks")))
def test_weights(name: str) -> None:
    """Statistics of w_i g_i, also negative, and without an example of weight 0."""
    with float64():
        found = gaps(make(name), WEIGHTED, WEIGHTS)
    # Its attention is computed in float32, where scaling the loss by w_i rounds otherwise than scaling the gradient.
    assert worst(found) <= (1e-7 if name == "nnx transformer" else EXACT), found


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HARD])
def test_hard_losses(name: str) -> None:
    with float64():
        found = gaps(hard(name), FEW)
    assert worst(found) <= EXACT, found


@pytest.mark.proof
@pytest.mark.parametrize("name", HARD)
def test_every_statistic_of_hard_losses(name: str) -> None:
    """Alike for each example, gradients have a variance of 0, and rounding is all that there is to compare."""
    names = [n for n in STATISTICS if "variance" not in n or name not in ("the loss itself",)]
    with float64():
        found = gaps(hard(name), names)
    assert worst(found) <= EXACT, found


def _margins(made: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S_i of the streamed pass, of the tape, |g_i|)."""

    @jax.jit
    def both(params: Any, data: Any) -> Any:
        (_, found), _ = per_example.value_and_grad(made.loss, (Margin(), SqNorms()))(params, *data)
        return found, safe_norms(per_example.record(made.loss)(params, *data), jnp.zeros(len(data[0])))

    (margin, squares), of_tape = jax.tree.map(np.asarray, both(made.params, made.data))
    return margin, of_tape / np.sqrt(ROUNDINGS * np.finfo(np.float64).eps), np.sqrt(squares)


@pytest.mark.parametrize("name", ["mlp", pytest.param("tied", marks=pytest.mark.slow)])
def test_the_margin_is_that_of_safe_norms(name: str) -> None:
    with float64():
        ours, of_tape, norms = _margins(make(name))
    assert gap(ours, of_tape) <= EXACT
    assert np.all(ours >= norms * (1 - EXACT))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scanned_blocks", "views"])
def test_the_margin_of_slices_is_tighter(name: str) -> None:
    """Terms of different slices are never added, so neither are their sizes: between the norm and the tape's S_i."""
    with float64():
        ours, of_tape, norms = _margins(make(name))
    assert np.all(ours >= norms * (1 - EXACT))
    assert np.all(ours <= of_tape * (1 + EXACT))


class Cubes(Statistic):
    """sum_i u . g_i^3 (a sum over examples, by parameter) and the weighted sum of entries of each example."""

    def __init__(self, like: Any, factor: Any, sums: bool) -> None:
        self.like, self.factor, self.sums = like, factor, sums

    def prepare(self, param: Any, params: Any) -> Part:
        like = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(self.like)}[param.path]
        return Part(param.path, None if self.sums else (2,), like=(like, {"again": like}), shared=self.factor)

    def of_use(self, gradients: Any, part: Part) -> Any:
        g = explicit(gradients.form).reshape(gradients.examples, *gradients.leaf.shape)
        weighted = part.shared * part.like[1]["again"] * g
        if self.sums:
            return jnp.sum(weighted * g**2, axis=0)
        return jnp.stack([jnp.sum(x.reshape(x.shape[0], -1), 1) for x in (weighted, weighted**0)], axis=1)

    def combine(self, found: Any, batch: Any) -> Any:
        return {path: found[path] for path in batch.paths}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) for n in ("scanned_blocks", "fallbacks", "views")] + ["mlp"]
)
def test_a_statistic_of_a_users_own(name: str) -> None:
    """`like` is sliced with the parameter and viewed as it is, `shared` is not; both count the entries once."""
    with float64():
        made, r = make(name), Drawn(9)
        like = jax.tree.map(lambda p: r(*np.shape(p)), made.params)
        statistics = [Cubes(like, jnp.float64(0.5), sums) for sums in (True, False)]

        @jax.jit
        def both(params: Any, data: Any) -> Any:
            g = jax.vmap(jax.grad(made.loss), (None, *(0 for _ in data)))(params, *data)
            return per_example.value_and_grad(made.loss, statistics)(params, *data)[0][1], g

        (cubes, entries), g = both(made.params, made.data)
        want = np.sum(0.5 * vector(like) * flat(g) ** 3, axis=0)
        assert gap(np.concatenate([np.ravel(cubes[path]) for path in columns_of(made.params)]), want) <= EXACT
        total = sum(np.asarray(x) for x in entries.values())
        assert gap(total[:, 0], 0.5 * flat(g) @ vector(like)) <= EXACT


def test_gradients_are_at_the_ambient_precision_and_statistics_exact() -> None:
    def loss(p: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ p["w"]) @ p["v"])

    def text(f: Any) -> str:
        return str(jax.make_jaxpr(f)(params, np.ones((3, 5, 8), np.float32)))

    params = {"w": np.ones((8, 8), np.float32), "v": np.ones((8, 4), np.float32)}
    assert "HIGHEST" not in text(per_example.value_and_grad(loss, ()))
    assert "HIGHEST" in text(per_example.value_and_grad(loss))
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in text(per_example.value_and_grad(loss, ()))
    clipped = text(per_example.clipped_value_and_grad(loss, 1.0, groups="parameter"))
    assert clipped.count("HIGHEST") == text(per_example.value_and_grad(loss, per_example.SqNorms("parameter"))).count(
        "HIGHEST"
    )
    private = per_example.private_grad(per_example.record(loss), clip=1.0, noise_multiplier=1.0, batch_size=3)
    assert "HIGHEST" in text(lambda p, x: private(p, x, key=jax.random.key(0))[0])


@pytest.mark.parametrize("name", ["lookups"])
def test_nothing_is_broadcast_to_more_axes_in_silence(name: str) -> None:
    """For users who forbid it: `jax.numpy_rank_promotion("raise")`."""
    with float64(), jax.numpy_rank_promotion("raise"):
        made = make(name)
        statistics = [per_example.SqNorms(), per_example.SecondMoment(), per_example.Projection(jax.random.key(0), 4)]
        vg = per_example.value_and_grad(made.loss, statistics)
        clipped = per_example.clipped_value_and_grad(made.loss, 1.0, passes=1)
        for f in (vg, clipped):
            jax.eval_shape(lambda *args, f=f: f(*args), made.params, *made.data)
