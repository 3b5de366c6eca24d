"""The form of each kind of layer in flax.linen: names and shapes of the arrays in its variables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxnn.interchange.forms import Form, Layout, blocks, renamed, same, separate
from jaxnn.interchange.matching import Library, Unit
from jaxnn.interchange.sites import Arrays, Site
from jaxnn.layers import (
    attention,
    batch_norm,
    conv,
    conv_transpose,
    dense,
    embedding,
    gated,
    group_norm,
    gru,
    layer_norm,
    lstm,
    parametric,
    position,
    recurrent,
    rms_norm,
)
from jaxnn.layers.base import Layer


def _reversed_window(w: Any) -> Any:
    """`jax.lax.conv_transpose` has the kernel reversed, see `layers.conv_transpose.apply`."""
    return np.flip(w, tuple(range(w.ndim - 2)))


DENSE = renamed(w=same("kernel"), b=same("bias"))
CONV_TRANSPOSE = renamed(w=Layout("kernel", _reversed_window, _reversed_window), b=same("bias"))
NORM = renamed(scale=same("scale"), shift=same("bias"))
STATISTICS = renamed(scale=same("scale"), shift=same("bias"), mean=same("mean"), var=same("var"))
TABLE = renamed(w=same("embedding"))

PROJECTIONS = {"q": "query", "k": "key", "v": "value"}
"""Names of the projections of `MultiHeadDotProductAttention`."""


def _write_attention(layer: Layer, ours: Arrays) -> Arrays:
    """Kernels with an axis of heads: (D, H, D_h) of queries, keys and values, (H, D_h, D) of outputs."""
    if "q_scale" in ours:
        raise ValueError("flax normalizes queries and keys by LayerNorm, jaxnn by RMSNorm: make it with qk_norm=False")
    size = ours["wq"].shape[1] // layer.options["settings"].heads
    theirs = {}
    for name, full in PROJECTIONS.items():
        theirs[f"{full}/kernel"] = ours[f"w{name}"].reshape(ours[f"w{name}"].shape[0], -1, size)
        theirs |= {f"{full}/bias": ours[f"b{name}"].reshape(-1, size)} if f"b{name}" in ours else {}
    theirs["out/kernel"] = ours["wo"].reshape(-1, size, ours["wo"].shape[1])
    return theirs | ({"out/bias": ours["bo"]} if "bo" in ours else {})


def _read_attention(layer: Layer, theirs: Arrays) -> Arrays:
    ours = {"wo": theirs["out/kernel"].reshape(-1, theirs["out/kernel"].shape[-1])}
    for name, full in PROJECTIONS.items():
        ours[f"w{name}"] = theirs[f"{full}/kernel"].reshape(theirs[f"{full}/kernel"].shape[0], -1)
        ours |= {f"b{name}": theirs[f"{full}/bias"].ravel()} if f"{full}/bias" in theirs else {}
    return ours | ({"bo": theirs["out/bias"]} if "out/bias" in theirs else {})


def _cell(gates: Sequence[str], biased: Sequence[str]) -> Form:
    """A cell that has a dense module for each gate and for x ("i") and h ("h"); `biased`: those that have our b."""
    inputs, states = [f"i{gate}" for gate in gates], [f"h{gate}" for gate in gates]

    def write(layer: Layer, ours: Arrays) -> Arrays:
        n = len(gates)
        theirs = {f"{name}/kernel": w for name, w in zip(inputs, blocks(ours["w"], n, 1), strict=True)}
        theirs |= {f"{name}/kernel": u for name, u in zip(states, blocks(ours["u"], n, 1), strict=True)}
        if "b" not in ours:
            raise ValueError("flax's cells have biases: leave b_init as it is")
        return theirs | {f"{name}/bias": b for name, b in zip(biased, blocks(ours["b"], n), strict=True)}

    def read(layer: Layer, theirs: Arrays) -> Arrays:
        return {
            "w": np.concatenate([theirs[f"{name}/kernel"] for name in inputs], 1),
            "u": np.concatenate([theirs[f"{name}/kernel"] for name in states], 1),
            "b": np.concatenate([theirs[f"{name}/bias"] for name in biased]),
        }

    return Form(write, read)


_GRU = _cell("rzn", ("ir", "iz", "in"))


def _write_gru(layer: Layer, ours: Arrays) -> Arrays:
    if not layer.options["reset_after"]:
        raise ValueError("flax resets after the recurrent product: make the layer by GRU(..., reset_after=True)")
    return _GRU.write(layer, ours) | {"hn/bias": ours["b_u"]}


def _read_gru(layer: Layer, theirs: Arrays) -> Arrays:
    return _GRU.read(layer, theirs) | {"b_u": theirs["hn/bias"]}


def _write_prelu(layer: Layer, ours: Arrays) -> Arrays:
    if layer.options["form"] is not parametric.PRELU or ours["slope"].shape != (1,):
        raise ValueError("of activations with a parameter flax has PReLU with one slope: PRelu(shared=True)")
    return {"negative_slope": ours["slope"].reshape(())}


ATTENTION = Form(_write_attention, _read_attention)
FORMS = {
    dense.KIND: DENSE,
    conv.KIND: DENSE,
    conv_transpose.KIND: CONV_TRANSPOSE,
    batch_norm.KIND: STATISTICS,
    layer_norm.KIND: NORM,
    group_norm.KIND: NORM,
    rms_norm.KIND: NORM,
    embedding.KIND: TABLE,
    position.LEARNED: TABLE,
    parametric.KIND: Form(_write_prelu, lambda layer, theirs: {"slope": theirs["negative_slope"].reshape(1)}),
    attention.KIND: ATTENTION,
    attention.CROSS: ATTENTION,
    recurrent.KIND: _cell(("",), ("i",)),
    lstm.KIND: _cell("ifgo", ("hi", "hf", "hg", "ho")),
    gru.KIND: Form(_write_gru, _read_gru),
}
"""Of each kind, the form of the module of flax.linen that it is."""

LINEAR = {"w": same("kernel"), "b": same("bias")}
ATTENTION_PARTS = [
    *({f"w{name}": LINEAR["w"], f"b{name}": LINEAR["b"]} for name in "qkvo"),
    *({f"{name}_scale": same("scale")} for name in "qk"),
]
MODULES = {
    attention.KIND: separate(ATTENTION_PARTS, "/"),
    attention.CROSS: separate(ATTENTION_PARTS, "/"),
    gated.KIND: separate([LINEAR, {"v": LINEAR["w"], "c": LINEAR["b"]}], "/"),
}
"""Of some kinds, their form as several modules: projections of attention, the two matrices of a gated layer."""

INNER = (
    {"query", "key", "value", "out"},
    {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"},
    {"ir", "iz", "in", "hr", "hz", "hn"},
    {"i", "h"},
)
"""The modules inside one of attention, or inside a cell."""


def grouped(names: Collection[str]) -> dict[str, tuple[Unit, str]]:
    """The module of each variable, and its name in it.

    Example:
        >>> grouped([f"attention/{name}/kernel" for name in ("query", "key", "value", "out")])["attention/out/kernel"]
        ('attention', 'out/kernel')
    """
    children: dict[str, set[str]] = {}
    for name in names:
        unit = name.rpartition("/")[0]
        parent, _, inner = unit.rpartition("/")
        children.setdefault(parent, set()).add(inner)

    def of(name: str) -> tuple[Unit, str]:
        unit, _, last = name.rpartition("/")
        parent, _, inner = unit.rpartition("/")
        if any(inner in each and each <= children[parent] for each in INNER):
            return parent, f"{inner}/{last}"
        return unit, last

    return {name: of(name) for name in names}


def unit(site: Site, given: Unit | None) -> Unit:
    """The name of a layer's module; by default that in a `linen.Sequential` of the structure of the network."""
    return "/".join(f"layers_{i}" for i in site.path.split("/") if i) if given is None else given


LINEN = Library("flax", "/", FORMS, MODULES, grouped, unit)
