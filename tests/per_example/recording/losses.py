"""Losses of one example, written with several libraries and by hand, with parameters and a batch drawn by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.per_example.cases import CASES

N = 5


class Made(NamedTuple):
    """`loss(params, *one example)`, parameters, and a batch of N examples with those of a second batch behind it."""

    loss: Callable[..., Any]
    params: Any
    data: tuple[Any, ...]


class Drawn:
    """Numbers by NumPy, in the order in which they are asked for, in the default floating dtype."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Any:
        drawn = self.rng.standard_normal(shape) / max(1.0, np.prod(shape[:-1]) ** 0.25)
        return np.asarray(drawn, jnp.result_type(float))

    def integers(self, below: int, *shape: int) -> Any:
        return self.rng.integers(0, below, shape).astype(np.int32)

    def like(self, tree: Any) -> Any:
        """Away from the zeros and ones with which biases and scales begin."""
        return jax.tree.map(lambda p: np.asarray(np.asarray(p, np.float64) + 0.3 * self(*p.shape)), tree)


def cross_entropy(z: Any, y: Any) -> Any:
    return -jax.nn.log_softmax(z)[y]


def mlp(r: Drawn, n: int) -> Made:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return cross_entropy(p["v"] @ jax.nn.relu(x @ p["w"] + p["b"]), y)

    return Made(loss, {"w": r(4, 6), "b": 0.5 + r(6), "v": r(3, 6)}, (r(n, 4), r.integers(3, n)))


def cnn(r: Drawn, n: int) -> Made:
    """Stride, dilation and asymmetric padding, channels first and last, channel groups, a dilated input."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        h = lax.conv_general_dilated(
            x[None], p["k"], (2, 1), [(1, 0), (2, 1)], rhs_dilation=(1, 2), dimension_numbers=numbers
        )
        h = jax.nn.relu(h + p["b"]).transpose(0, 3, 1, 2)
        numbers = ("NCHW", "OIHW", "NCHW")
        h = lax.conv_general_dilated(
            h, p["g"], (1, 1), [(1, -1), (0, 0)], (2, 1), feature_group_count=2, dimension_numbers=numbers
        )
        return cross_entropy(jnp.tanh(h[0] + p["c"][:, None, None]).mean((1, 2)) @ p["w"], y)

    params = {"k": r(3, 2, 2, 4), "b": r(4), "g": r(4, 2, 3, 2), "c": r(4), "w": r(4, 3)}
    return Made(loss, params, (r(n, 7, 6, 2), r.integers(3, n)))


def rnn(r: Drawn, n: int) -> Made:
    def loss(p: Any, xs: Any, y: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = jnp.tanh(x @ p["wx"] + h @ p["wh"] + p["b"])
            return h, h * p["s"]

        h, hs = lax.scan(step, jnp.zeros(6), xs)
        return cross_entropy(h @ p["o"] + hs.sum(0) @ p["o"], y)

    return Made(
        loss, {"wx": r(4, 6), "wh": r(6, 6), "b": r(6), "s": r(6), "o": r(6, 3)}, (r(n, 7, 4), r.integers(3, n))
    )


def tied_autoencoder(r: Drawn, n: int) -> Made:
    def loss(p: Any, x: Any) -> Any:
        return jnp.sum((jax.nn.sigmoid(x @ p["w"] + p["b"]) @ p["w"].T + p["c"] - x) ** 2)

    return Made(loss, {"w": r(4, 6), "b": r(6), "c": r(4)}, (r(n, 4),))


def scanned_blocks(r: Drawn, n: int) -> Made:
    """Layers stacked along an axis that a rematerialised scan runs over, each with a loop of its own inside."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        @jax.checkpoint
        def block(h: Any, layer: Any) -> Any:
            def again(h: Any, t: Any) -> Any:
                return jnp.tanh(h @ layer["w"] + p["c"] + t), None

            h = lax.scan(again, h, jnp.arange(2.0))[0] * layer["s"]
            numbers = ("NCW", "WIO", "NCW")
            mixed = lax.conv_general_dilated(h.T[None], layer["k"], (1,), "SAME", dimension_numbers=numbers)
            return h + mixed[0].T, None

        h = lax.scan(block, x, p["layers"], reverse=True)[0]
        return cross_entropy(h.mean(0) @ p["o"], y)

    layers = {"w": r(3, 4, 4), "s": r(3, 4), "k": r(3, 2, 4, 4)}
    return Made(loss, {"layers": layers, "c": r(4), "o": r(4, 3)}, (r(n, 5, 4), r.integers(3, n)))


def attention(r: Drawn, n: int) -> Made:
    """Einsums with heads before, between and behind the other axes, a norm, embeddings tied to the output."""

    def loss(p: Any, t: Any, y: Any) -> Any:
        x = jnp.take(p["e"], t, axis=0) + p["positions"][: t.shape[0]]
        q, k = jnp.einsum("td,dhk->thk", x, p["q"]), jnp.einsum("td,hdk->thk", x, p["k"])
        v = jnp.einsum("td,dkh->thk", x, p["v"])
        a = jax.nn.softmax(jnp.einsum("thk,shk->hts", q, k))
        z = x + jnp.einsum("thk,hkd->td", jnp.einsum("hts,shk->thk", a, v), p["o"])
        z = (z - z.mean(-1, keepdims=True)) * lax.rsqrt(z.var(-1, keepdims=True) + 1e-5) * p["s"] + p["b"]
        return jnp.mean(jax.vmap(cross_entropy)(z @ p["e"].T, y))

    params = {"e": r(7, 8), "positions": r(9, 8), "q": r(8, 2, 4), "k": r(2, 8, 4), "v": r(8, 4, 2), "o": r(2, 4, 8)}
    return Made(loss, {**params, "s": r(8), "b": r(8)}, (r.integers(7, n, 5), r.integers(7, n, 5)))


def views(r: Drawn, n: int) -> Made:
    """Weights split, overlapping slices, reversed, negated, scaled, strided, broadcast and reshaped."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = sum(jnp.tanh(x @ part) for part in jnp.split(p["qkv"], 3, axis=1))
        z += jnp.tanh(x @ p["over"][:, :3]) + x @ p["over"][:, 2:5]
        z += x @ (-p["t"] * 0.3).T[::-1] / 2 - p["t"][:, 0] / 3
        z += x[:2] @ p["strided"][::2, ::-1]
        return cross_entropy(z * jnp.broadcast_to(p["s"][:, None], (3, 2)).reshape(6)[1:4], y)

    params = {"qkv": r(4, 9), "over": r(4, 5), "t": r(3, 4), "strided": r(4, 3), "s": r(3)}
    return Made(loss, params, (r(n, 4), r.integers(3, n)))


def columns(r: Drawn, n: int) -> Made:
    """Weights reshaped column by column: alone, in a loop over slices, flat, concatenated."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = x @ p["w"].reshape(4, 3, order="F") + p["flat"].ravel(order="F")[2:5]
        z = lax.scan(lambda z, w: (jnp.tanh(z @ w.reshape(3, 3, order="F")), None), z, p["stack"])[0]
        joined = jnp.concatenate([p["one"], p["other"]]).reshape(3, 4, order="F")
        return cross_entropy(z + joined @ x, y)

    params = {"w": r(3, 4), "flat": r(2, 3), "stack": r(2, 3, 3), "one": r(2, 3), "other": r(2, 3)}
    return Made(loss, params, (r(n, 4), r.integers(3, n)))


def pointwise(r: Drawn, n: int) -> Made:
    def loss(p: Any, x: Any, y: Any) -> Any:
        h = jnp.where(x > 0, x, p["a"] * x) / p["d"] + jnp.where(x > 0.5, p["c"], x)
        h = jnp.maximum(h, p["m"]) + (x**2 + 0.1) ** p["e"] + jnp.minimum(p["one"], x) - jnp.arctan2(x, p["d"])
        return cross_entropy((h * (1 + p["scale"])) @ p["w"] + 2 / p["d"][:3], y)

    params = {"a": r(), "d": 1 + r(4) ** 2, "c": r(4), "m": r(4), "e": r(4), "one": r(1), "scale": r(4), "w": r(4, 3)}
    return Made(loss, params, (r(n, 4), r.integers(3, n)))


def joined(r: Drawn, n: int) -> Made:
    """Weights laid end to end: inputs, outputs and heads, in a loop, transposed, with biases that get a new axis."""

    def loss(p: Any, xs: Any, y: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            z = h @ jnp.concatenate([p["a"], -2 * p["b"]], axis=1) + jnp.concatenate([p["c"], p["d"]])
            return jnp.tanh(z[:4] * z[4:] + x), None

        h = lax.scan(step, jnp.zeros(4), xs)[0]
        h = jnp.concatenate([h, xs[0]]) @ jnp.concatenate([p["a"], p["e"]]).astype(jnp.float64)
        heads = jnp.einsum("hd,hde->he", h.reshape(2, 2), jnp.stack([p["f"], p["g"]]))
        z = jnp.concatenate([p["i"], p["j"]], axis=1).T @ heads.reshape(4)
        z = (z[None] * jnp.concatenate([p["c"], p["l"]])[None] - jnp.concatenate([p["k"], p["k"], p["l"]])[None])[0]
        return cross_entropy(z[:3] + jnp.sum(z), y)

    params = {"a": r(4, 4), "b": r(4, 4), "c": r(4), "d": r(4), "e": r(4, 4), "f": r(2, 2), "g": r(2, 2), "i": r(4, 2)}
    return Made(loss, {**params, "j": r(4, 3), "k": r(2), "l": r(1)}, (r(n, 3, 4), r.integers(3, n)))


def lookups(r: Drawn, n: int) -> Made:
    """A row, rows along another axis, rows inside `vmap`, rows beyond the edge, a table for each layer of a loop."""

    def loss(p: Any, t: Any, y: Any) -> Any:
        h = p["row"][t[0]] + jnp.take(p["columns"], t.reshape(2, 3), axis=1).mean((1, 2))
        h += jax.vmap(lambda i: p["row"][i])(t).sum(0) + p["row"].at[2 * t - 3].get(mode="clip").sum(0)
        h += jnp.nan_to_num(p["filled"].at[2 * t - 3].get(mode="fill", fill_value=1.0)).sum(0)
        h += lax.scan(lambda h, table: (jnp.tanh(h) + table[t].sum(0), None), jnp.zeros(4), p["tables"])[0]
        h = lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ p["by_index"][i]), h)
        h += jnp.take(p["long"], t.astype(jnp.uint8), axis=0).sum(0)
        return cross_entropy(h[:3], y)

    params = {
        "row": r(7, 4),
        "long": r(300, 4),
        "columns": r(4, 7),
        "filled": r(7, 4),
        "tables": r(2, 7, 4),
        "by_index": r(2, 4, 4),
    }
    return Made(loss, params, (r.integers(7, n, 6), r.integers(3, n)))


def tied(r: Drawn, n: int) -> Made:
    """Tables that are looked up and multiplied: scaled, stored transposed, product first, one position of each, several
    of each, indices beyond the edge, repeated rows, in a loop, as a part of a larger array."""

    def loss(p: Any, t: Any, y: Any) -> Any:
        h = jnp.tanh(2.0 * p["scaled"][t])
        z = h @ (-0.5 * p["scaled"]).T
        h = h + jnp.tanh(jnp.take(p["transposed"], t, axis=1).T)
        z += h @ p["transposed"]
        seen = h[:2] @ p["first"].T
        h = h + jnp.tanh(seen.sum() + p["first"][jnp.argmax(seen, axis=1)].sum(0))
        z += jnp.tanh(h[0] + p["row"][t[0]]) @ p["row"].T
        h = h + p["several"][t[::2]].sum(0) + p["several"][t[0]]
        z += h @ p["several"].T + jax.vmap(lambda h: p["several"] @ jnp.tanh(h))(h)
        h = h + jnp.nan_to_num(p["filled"].at[2 * t - 3].get(mode="fill", fill_value=0.0))
        h = h + p["filled"].at[t - 2].get(mode="clip")
        z += jnp.einsum("td,vd->tv", h, p["filled"])

        def step(h: Any, i: Any) -> Any:
            h = jnp.tanh(h + p["looped"][i])
            return h, p["looped"] @ h

        z += lax.scan(step, h[0], t)[1]
        heads = p["heads"][t].reshape(-1, 4) + h
        z += jnp.einsum("thd,vhd->tv", heads.reshape(-1, 2, 2), p["heads"])
        z += jnp.tanh(p["part"][:7][t] + p["part"][7:][t % 4]) @ p["part"][:7].T
        return jnp.mean(jax.vmap(cross_entropy)(z, y))

    names = ["scaled", "first", "row", "several", "filled", "looped"]
    params = {name: r(7, 4) for name in names} | {"transposed": r(4, 7), "heads": r(7, 2, 2), "part": r(11, 4)}
    return Made(loss, params, (r.integers(7, n, 5), r.integers(7, n, 5)))


def several_kinds(r: Drawn, n: int) -> Made:
    """Uses of one array that have no common form: products of several shapes, added and multiplied, slices that
    overlap, rows of an array and products of its flattened axes."""

    def loss(p: Any, t: Any, y: Any) -> Any:
        h = jnp.tanh(p["overlap"][t] + p["added"][t])
        z = h @ p["overlap"][:3].T + (h + p["added"][:5]) @ p["added"][2:5].T
        wide = p["shapes"].reshape(2, 8)
        h = jnp.tanh(h @ p["shapes"] + wide[0, :4] * (h.reshape(10, 2)[:5] @ wide)[:, 4:])
        z += jnp.tanh(p["blocks"][t].reshape(-1, 4) + h)[:, :2] @ p["blocks"].reshape(14, 2).T @ jnp.ones((14, 3))
        z += jnp.tanh(h @ p["convolved"][0])
        numbers = ("NWC", "WIO", "NWC")
        z += lax.conv_general_dilated(h[None], p["convolved"], (1,), "SAME", dimension_numbers=numbers)[0]
        return jnp.mean(jax.vmap(cross_entropy)(z, y))

    params = {"overlap": r(7, 4), "added": r(7, 4), "shapes": r(4, 4), "blocks": r(7, 2, 2), "convolved": r(2, 4, 3)}
    return Made(loss, params, (r.integers(7, n, 5), r.integers(3, n, 5)))


@jax.custom_vjp
def doubled_rounding(x: Any) -> Any:
    return jnp.round(x)


doubled_rounding.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (2 * g,))


def fallbacks(r: Drawn, n: int) -> Made:
    """Parameters in a branch, a sort, an operation with a derivative of its own, a carry, products of each other."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = lax.cond(x[0] > 0, lambda w: x @ w, lambda w: -2 * x @ w, p["branch"]) + jnp.sort(p["sorted"])
        z += jnp.tanh(x @ doubled_rounding(3 * p["own"])) + x @ (p["left"] @ p["right"])
        h = lax.scan(lambda h, v: (jnp.tanh(h + v * p["twice"][0]), None), p["carried"], x)[0]
        joined = jnp.concatenate([p["twice"], p["sorted"]])
        return cross_entropy(z + h + joined[:3] * joined[3:], y) + jnp.sum(p["branch"] ** 2)

    params = {"branch": r(4, 3), "sorted": r(3), "own": r(4, 3), "left": r(4, 2), "right": r(2, 3), "carried": r(3)}
    return Made(loss, {**params, "twice": r(3), "unused": r(2)}, (r(n, 4), r.integers(3, n)))


def ours(name: str) -> Callable[[Drawn, int], Made]:
    """The loss of one example of a network of `tests.per_example.cases` on words."""
    case = CASES[name]

    def made(r: Drawn, n: int) -> Made:
        def loss(params: Any, x: Any, y: Any) -> Any:
            return case.loss(case.net.predict(params, (), x[None]), y[None])[0]

        words = jax.ShapeDtypeStruct(case.shape, jnp.int32)
        params, _ = jax.eval_shape(lambda: case.net.init(jax.random.key(0), words))
        data = r.integers(case.words, n, *case.shape), r.integers(3, n, *case.labels)
        return Made(loss, jax.tree.map(lambda p: r(*p.shape), params), data)

    return made


def flax_linen(kind: str) -> Callable[[Drawn, int], Made]:
    def make(r: Drawn, n: int) -> Made:
        nn = pytest.importorskip("flax.linen")

        class Mlp(nn.Module):  # type: ignore[name-defined]
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.Dense(3)(nn.relu(nn.Dense(6)(x)))

        class Cnn(nn.Module):  # type: ignore[name-defined]
            @nn.compact
            def __call__(self, x: Any) -> Any:
                x = nn.GroupNorm(2)(nn.relu(nn.Conv(4, (3, 3), strides=2)(x)))
                x = nn.avg_pool(nn.ConvTranspose(3, (2, 2))(x), (2, 2))
                x = nn.max_pool(nn.Conv(6, (3, 3), feature_group_count=3)(x), (2, 2))
                return nn.Dense(3)(x.reshape(x.shape[0], -1))

        class Transformer(nn.Module):  # type: ignore[name-defined]
            @nn.compact
            def __call__(self, t: Any) -> Any:
                embed = nn.Embed(7, 8)
                x = embed(t) + self.param("positions", nn.initializers.normal(), (t.shape[1], 8))
                normed = nn.LayerNorm()(x)
                x = x + nn.MultiHeadDotProductAttention(2)(normed, normed)
                x = x + nn.remat(nn.Dense)(8)(nn.gelu(nn.Dense(12)(nn.RMSNorm()(x))))
                return embed.attend(x).mean(1)[:, :3]

        class Gru(nn.Module):  # type: ignore[name-defined]
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.Dense(3)(nn.RNN(nn.GRUCell(6, param_dtype=jnp.float64))(x)[:, -1])

        class Lstm(nn.Module):  # type: ignore[name-defined]
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(6, param_dtype=jnp.float64))(x)[:, -1])

        net, shape = {"mlp": (Mlp(), (4,)), "cnn": (Cnn(), (9, 9, 2)), "transformer": (Transformer(), (6,)),
                      "gru": (Gru(), (5, 4)), "lstm": (Lstm(), (5, 4))}[kind]  # fmt: skip
        x = r.integers(7, n, *shape) if kind == "transformer" else r(n, *shape)
        params = r.like(net.init(jax.random.key(0), x[:1]))
        return Made(lambda p, x, y: cross_entropy(net.apply(p, x[None])[0], y), params, (x, r.integers(3, n)))

    return make


def flax_nnx(kind: str) -> Callable[[Drawn, int], Made]:
    def make(r: Drawn, n: int) -> Made:
        nnx = pytest.importorskip("flax.nnx")

        class Cnn(nnx.Module):  # type: ignore[name-defined]
            def __init__(self, rngs: Any) -> None:
                self.conv, self.norm = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.LayerNorm(4, rngs=rngs)
                self.dense = nnx.Linear(100, 3, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                return self.dense(self.norm(nnx.relu(self.conv(x))).reshape(x.shape[0], -1))

        class Transformer(nnx.Module):  # type: ignore[name-defined]
            def __init__(self, rngs: Any) -> None:
                self.embed, self.norm = nnx.Embed(7, 8, dtype=jnp.float64, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
                self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=rngs)
                self.up, self.down = nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)

            def __call__(self, t: Any) -> Any:
                x = self.embed(t)
                x = x + self.attention(self.norm(x))
                return self.embed.attend(x + self.down(nnx.gelu(self.up(x)))).mean(1)[:, :3]

        def mlp(rngs: Any) -> Any:
            return nnx.Sequential(nnx.Linear(4, 6, rngs=rngs), nnx.relu, nnx.Linear(6, 3, rngs=rngs))

        net, shape = {"mlp": (mlp, (4,)), "cnn": (Cnn, (5, 5, 2)), "transformer": (Transformer, (6,))}[kind]
        graph, params, rest = nnx.split(net(nnx.Rngs(0)), nnx.Param, ...)
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64) + 0.1 * r(*p.shape), params)
        x = r.integers(7, n, *shape) if kind == "transformer" else r(n, *shape)

        def loss(p: Any, x: Any, y: Any) -> Any:
            return cross_entropy(nnx.merge(graph, p, rest)(x[None])[0], y)

        return Made(loss, params, (x, r.integers(3, n)))

    return make


def equinox(kind: str) -> Callable[[Drawn, int], Made]:
    def make(r: Drawn, n: int) -> Made:
        eqx = pytest.importorskip("equinox")
        nn, key = eqx.nn, jax.random.key(0)

        class Gru(eqx.Module):  # type: ignore[name-defined]
            cell: Any
            out: Any

            def __call__(self, xs: Any) -> Any:
                return self.out(lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(6), xs)[0])

        class Transformer(eqx.Module):  # type: ignore[name-defined]
            embed: Any
            attention: Any
            norm: Any
            out: Any

            def __call__(self, t: Any) -> Any:
                h = jax.vmap(self.embed)(t)
                return jax.vmap(self.out)(jax.vmap(self.norm)(h + self.attention(h, h, h))).mean(0)

        def cnn() -> Any:
            relu = nn.Lambda(jax.nn.relu)
            first = [nn.Conv2d(2, 4, 3, key=key), relu, nn.GroupNorm(2, 4), nn.MaxPool2d(2, 2)]
            return nn.Sequential(
                [*first, nn.ConvTranspose2d(4, 3, 2, key=key), nn.Lambda(jnp.ravel), nn.Linear(48, 3, key=key)]
            )

        nets = {
            "mlp": lambda: (nn.MLP(4, 3, 8, 2, key=key), r(n, 4)),
            "cnn": lambda: (cnn(), r(n, 2, 8, 8)),
            "gru": lambda: (Gru(nn.GRUCell(4, 6, key=key), nn.Linear(6, 3, key=key)), r(n, 5, 4)),
            "transformer": lambda: (
                Transformer(
                    nn.Embedding(7, 8, key=key), nn.MultiheadAttention(2, 8, key=key), nn.LayerNorm(8),
                    nn.Linear(8, 3, key=key),
                ),
                r.integers(7, n, 6),
            ),
        }  # fmt: skip
        net, x = nets[kind]()
        params, rest = eqx.partition(net, eqx.is_inexact_array)
        return Made(lambda p, x, y: cross_entropy(eqx.combine(p, rest)(x), y), r.like(params), (x, r.integers(3, n)))

    return make


def haiku(kind: str) -> Callable[[Drawn, int], Made]:
    def make(r: Drawn, n: int) -> Made:
        hk = pytest.importorskip("haiku")

        def cnn(x: Any) -> Any:
            x = hk.LayerNorm(-1, True, True)(jax.nn.relu(hk.Conv2D(4, 3)(x[None])))
            return hk.Linear(3)(hk.Conv2D(4, 3, stride=2)(x).reshape(-1))

        def recurrent(x: Any) -> Any:
            for core in (hk.GRU(6), hk.LSTM(6)):
                x, _ = hk.dynamic_unroll(core, x, core.initial_state(None))
            return hk.Linear(3)(x[-1])

        net = hk.without_apply_rng(hk.transform({"cnn": cnn, "recurrent": recurrent}[kind]))
        x = r(n, *{"cnn": (6, 6, 2), "recurrent": (5, 4)}[kind])
        params = r.like(net.init(jax.random.key(0), x[0]))
        return Made(lambda p, x, y: cross_entropy(net.apply(p, x), y), params, (x, r.integers(3, n)))

    return make


LOSSES: dict[str, Callable[[Drawn, int], Made]] = {
    "mlp": mlp,
    "cnn": cnn,
    "rnn": rnn,
    "tied_autoencoder": tied_autoencoder,
    "scanned_blocks": scanned_blocks,
    "attention": attention,
    "views": views,
    "columns": columns,
    "pointwise": pointwise,
    "joined": joined,
    "lookups": lookups,
    "tied": tied,
    "several kinds": several_kinds,
    "fallbacks": fallbacks,
    "flax mlp": flax_linen("mlp"),
    "flax cnn": flax_linen("cnn"),
    "flax transformer": flax_linen("transformer"),
    "flax gru": flax_linen("gru"),
    "flax lstm": flax_linen("lstm"),
    "nnx mlp": flax_nnx("mlp"),
    "nnx cnn": flax_nnx("cnn"),
    "nnx transformer": flax_nnx("transformer"),
    "equinox mlp": equinox("mlp"),
    "equinox cnn": equinox("cnn"),
    "equinox gru": equinox("gru"),
    "equinox transformer": equinox("transformer"),
    "haiku cnn": haiku("cnn"),
    "haiku recurrent": haiku("recurrent"),
    "decoder": ours("transformer"),
    "decoder, stacked": ours("transformer_stacked"),
    "encoder": ours("encoder"),
    "encoder, stacked": ours("encoder_stacked"),
}
"""From a source of random numbers and N to a loss, its parameters and its batch."""

FALLEN = {
    "fallbacks": {
        "['branch']": "cond", "['carried']": "scan", "['own']": "custom_vjp_call", "['right']": "dot_general",
        "['sorted']": "sort", "['twice']": "slice",
    },
    "columns": {"['one']": "reshape", "['other']": "reshape"},
}  # fmt: skip
"""The parameters without a rule, and why."""


def make(name: str, n: int = N, seed: int = 0) -> Made:
    """In float64."""
    return LOSSES[name](Drawn(seed), n)
