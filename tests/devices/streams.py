"""Losses of one example, and how their parameters are sharded: what tests of streamed statistics on devices share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import losses
from tests.per_example.recording.losses import Drawn

N = 16
Loss = Callable[..., Any]


class Case(NamedTuple):
    """A loss of one example, its parameters, a batch, and how tensor parallelism shards the parameters."""

    loss: Loss
    params: dict[str, Any]
    data: tuple[Any, ...]
    split: dict[str, P]


def on_one(w: Any) -> Any:
    """The parameter, gathered where types say how it is sharded: there JAX leaves that to the user."""
    return jax.sharding.reshard(w, P()) if jax.sharding.get_abstract_mesh().explicit_axes else w


def mlp(n: int = N, width: int = 8, hidden: int = 16) -> Case:
    def loss(p: Any, x: Any, y: Any, scale: Any) -> Any:
        h = jnp.tanh(x @ on_one(p["w"]) + on_one(p["b"]))
        return scale * jnp.sum((h @ on_one(p["v"]) + on_one(p["c"]) - y) ** 2)

    r = Drawn(0)
    params = {"w": r(width, hidden), "b": r(hidden), "v": r(hidden, 8), "c": r(8)}
    split = {"w": P(None, "model"), "b": P("model"), "v": P("model"), "c": P()}
    return Case(loss, params, (r(n, width), r(n, 8), r(n)), split)


def sequence(n: int = N, times: int = 6, width: int = 8, hidden: int = 16) -> Case:
    """Lookups, a scaling, products at several positions, a matrix that is used twice."""

    def look(w: Any, i: Any) -> Any:
        return w.at[i].get(out_sharding=P()) if jax.sharding.get_abstract_mesh().explicit_axes else w[i]

    def loss(p: Any, words: Any, y: Any) -> Any:
        p = jax.tree.map(on_one, p)
        h = look(p["table"], words) * p["scale"]
        h = jnp.tanh((h + h @ p["twice"]) @ p["twice"])
        return jnp.sum((jnp.tanh(h @ p["w"]) @ p["v"] - y) ** 2)

    r = Drawn(1)
    params = {"table": r(24, width), "scale": r(width), "twice": r(width, width)}
    params |= {"w": r(width, hidden), "v": r(hidden, width)}
    split = {"table": P(), "scale": P(), "twice": P(), "w": P(None, "model"), "v": P("model")}
    return Case(loss, params, (r.integers(24, n, times), r(n, width)), split)


def blocks(n: int = N, times: int = 4, width: int = 8, hidden: int = 16, layers: int = 3) -> Case:
    """Scanned, rematerialized blocks."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        p = jax.tree.map(on_one, p)

        def block(h: Any, q: Any) -> Any:
            return h + jnp.tanh((h * q["g"]) @ q["w"]) @ q["v"], None

        h, _ = lax.scan(jax.checkpoint(block), x, {name: p[name] for name in ("g", "w", "v")})
        return jnp.sum((jnp.sum(h, axis=0) @ p["out"] - y) ** 2)

    r = Drawn(2)
    params = {"g": r(layers, width), "w": r(layers, width, hidden), "v": r(layers, hidden, width), "out": r(width, 8)}
    split = {"g": P(), "w": P(None, None, "model"), "v": P(None, "model"), "out": P()}
    return Case(loss, params, (r(n, times, width), r(n, 8)), split)


def parallel(n: int = N, times: int = 5, width: int = 8, hidden: int = 16) -> Case:
    """Products whose features are sharded by their types too: what they contract over devices says so."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        h = jnp.tanh(x @ p["w"] + p["b"])
        explicit = jax.sharding.get_abstract_mesh().explicit_axes
        out = jnp.matmul(h, p["v"], out_sharding=P()) if explicit else h @ p["v"]
        return jnp.sum((out + p["c"] - y) ** 2)

    r = Drawn(4)
    params = {"w": r(width, hidden), "b": r(hidden), "v": r(hidden, 8), "c": r(8)}
    split = {"w": P(None, "model"), "b": P("model"), "v": P("model"), "c": P()}
    return Case(loss, params, (r(n, times, width), r(n, times, 8)), split)


def two_products(n: int = 64, times: int = 64, width: int = 64, hidden: int = 1024) -> Case:
    """Gradients of 256 KiB that are formed once for their norm and their sum: in chunks of 4 on a CPU."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        return jnp.sum((jnp.tanh(x @ p["w"]) @ p["v"] - y) ** 2)

    r = Drawn(3)
    params = {"w": r(width, hidden), "v": r(hidden, width)}
    return Case(loss, params, (r(n, times, width), r(n, times, width)), {"w": P(None, "model"), "v": P("model")})


def vocabulary(n: int = N, times: int = 4, width: int = 8, classes: int = 24) -> Case:
    """An output layer in chunks of classes, of which the last is part of another."""

    def loss(p: Any, x: Any, y: Any) -> Any:
        h = jnp.tanh(x @ on_one(p["v"]))
        return losses.chunked_softmax_cross_entropy(h[None], on_one(p["w"]), y[None], b=on_one(p["b"]), chunk=7)[0]

    r = Drawn(5)
    params = {"v": r(width, width), "w": r(width, classes), "b": r(classes)}
    split = {"v": P(), "w": P(None, "model"), "b": P("model")}
    return Case(loss, params, (r(n, times, width), r.integers(classes, n, times)), split)


CASES: dict[str, Callable[..., Case]] = {"mlp": mlp, "sequence": sequence, "blocks": blocks, "two": two_products}
CASES |= {"parallel": parallel, "vocabulary": vocabulary}


def fsdp(params: Any, devices: int, axis: str = "data") -> Any:
    """The largest axis that the number of devices divides, sharded."""

    def spec(leaf: Any) -> P:
        at = max((i for i, n in enumerate(leaf.shape) if n % devices == 0), key=lambda i: leaf.shape[i], default=None)
        return P(*(axis if i == at else None for i in range(leaf.ndim)))

    return jax.tree.map(spec, params)


def layout(case: Case, name: str, devices: int) -> Any:
    if name == "tensor parallel":
        return case.split
    return fsdp(case.params, devices) if name == "fsdp" else jax.tree.map(lambda _: P(), case.params)


def placed(case: Case, specs: Any, weights: Any, where: Any) -> tuple[Any, ...]:
    """The parameters, sharded by `specs`, and (weights, *data), sharded over the axis "data", on a mesh."""

    def on(tree: Any, specs: Any) -> Any:
        return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(where, s)), tree, specs)

    batch = (weights, *case.data)
    return (on(case.params, specs), *on(batch, tuple(P("data") for _ in batch)))


def plain(loss: Loss) -> Callable[..., Any]:
    """The losses, and the gradient of their sum, by `jax.grad`."""

    def both(params: Any, *data: Any) -> Any:
        def total(params: Any) -> Any:
            each = jax.vmap(loss, (None, *(0 for _ in data)))(params, *data)
            return jnp.sum(each), each

        grads, each = jax.grad(total, has_aux=True)(params)
        return each, grads

    return both


LARGE: dict[str, Callable[[], Case]] = {
    "mlp": lambda: mlp(512, 32, 64),
    "two": two_products,
    "blocks": lambda: blocks(64, 16, 32, 128),
}
"""With more numbers in the activations than in the parameters: else XLA gathers activations, not parameters."""
