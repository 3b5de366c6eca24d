"""The form of each kind of layer in PyTorch: names and shapes of the arrays in its `state_dict`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxnn.interchange.forms import Form, Layout, blocks, renamed, same, separate, transposed
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
from jaxnn.layers.recurrence import RecurrentKind


def _out_in_first(w: Any) -> Any:
    """(*window, in, out) -> (out, in, *window)."""
    return np.transpose(w, (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))


def _out_in_last(w: Any) -> Any:
    return np.transpose(w, (*range(2, w.ndim), 1, 0))


def _channels_first(w: Any) -> Any:
    """(*window, in, out) -> (in, out, *window)."""
    return np.moveaxis(w, (-2, -1), (0, 1))


def _channels_last(w: Any) -> Any:
    return np.moveaxis(w, (0, 1), (-2, -1))


DENSE = renamed(w=transposed("weight"), b=same("bias"))
CONV = renamed(w=Layout("weight", _out_in_first, _out_in_last), b=same("bias"))
CONV_TRANSPOSE = renamed(w=Layout("weight", _channels_first, _channels_last), b=same("bias"))
TABLE = renamed(w=same("weight"))
NORM = renamed(scale=same("weight"), shift=same("bias"))
STATISTICS = renamed(
    scale=same("weight"), shift=same("bias"), mean=same("running_mean"), var=same("running_var")
)._replace(optional={"num_batches_tracked": np.zeros((), np.int64)})


def _write_rnn(layer: Layer, ours: Arrays) -> Arrays:
    """The two biases of PyTorch act as their sum: ours is the first, and the second is 0."""
    theirs = {"weight_ih": ours["w"].T, "weight_hh": ours["u"].T}
    return theirs | ({"bias_ih": ours["b"], "bias_hh": np.zeros_like(ours["b"])} if "b" in ours else {})


def _read_rnn(layer: Layer, theirs: Arrays) -> Arrays:
    ours = {"w": theirs["weight_ih"].T, "u": theirs["weight_hh"].T}
    return ours | ({"b": theirs["bias_ih"] + theirs["bias_hh"]} if "bias_ih" in theirs else {})


def _write_gru(layer: Layer, ours: Arrays) -> Arrays:
    if not layer.options["reset_after"]:
        raise ValueError("PyTorch resets after the recurrent product: make the layer by GRU(..., reset_after=True)")
    theirs = _write_rnn(layer, ours)
    if "b" in ours:
        gates = np.zeros_like(ours["b_u"])
        theirs["bias_hh"] = np.concatenate([gates, gates, ours["b_u"]])
    return theirs


def _read_gru(layer: Layer, theirs: Arrays) -> Arrays:
    ours = _read_rnn(layer, theirs)
    if "b" in ours:
        b_u = blocks(theirs["bias_hh"], 3)[2]
        ours |= {"b": np.concatenate([*blocks(ours["b"], 3)[:2], blocks(theirs["bias_ih"], 3)[2]]), "b_u": b_u}
    return ours


def _write_attention(layer: Layer, ours: Arrays) -> Arrays:
    """`MultiheadAttention`: one matrix for queries, keys and values, or three if it reads other features."""
    width = ours["wo"].shape[1]
    if "q_scale" in ours or ours["wq"].shape != (width, width) or ours["wk"].shape[1] != width:
        raise ValueError(
            "PyTorch's MultiheadAttention has no qk_norm, kv_heads and head_features; give the names of the linear "
            "modules of queries, keys, values and outputs (then of the two norms), such as "
            'names={path: ("q_proj", "k_proj", "v_proj", "o_proj")}'
        )
    if ours["wk"].shape == (width, width):
        theirs = {"in_proj_weight": np.concatenate([ours[f"w{name}"].T for name in "qkv"])}
    else:
        theirs = {f"{name}_proj_weight": ours[f"w{name}"].T for name in "qkv"}
    theirs["out_proj.weight"] = ours["wo"].T
    if "bq" in ours:
        theirs["in_proj_bias"] = np.concatenate([ours[f"b{name}"] for name in "qkv"])
        theirs["out_proj.bias"] = ours["bo"]
    return theirs


def _read_attention(layer: Layer, theirs: Arrays) -> Arrays:
    if "in_proj_weight" in theirs:
        each = blocks(theirs["in_proj_weight"], 3)
    else:
        each = [theirs[f"{name}_proj_weight"] for name in "qkv"]
    ours = {f"w{name}": w.T for name, w in zip("qkv", each, strict=True)} | {"wo": theirs["out_proj.weight"].T}
    if "in_proj_bias" in theirs:
        ours |= {f"b{name}": b for name, b in zip("qkv", blocks(theirs["in_proj_bias"], 3), strict=True)}
        ours["bo"] = theirs["out_proj.bias"]
    return ours


def _write_prelu(layer: Layer, ours: Arrays) -> Arrays:
    if layer.options["form"] is not parametric.PRELU:
        raise ValueError(f"PyTorch has no {layer.options['form']} with a parameter")
    return {"weight": ours["slope"]}


RECURRENT = Form(_write_rnn, _read_rnn)
LINEAR = {"w": transposed("weight"), "b": same("bias")}
ATTENTION = separate(
    [*({f"w{n}": LINEAR["w"], f"b{n}": LINEAR["b"]} for n in "qkvo"), *({f"{n}_scale": same("weight")} for n in "qk")],
)

FORMS = {
    dense.KIND: DENSE,
    conv.KIND: CONV,
    conv_transpose.KIND: CONV_TRANSPOSE,
    batch_norm.KIND: STATISTICS,
    layer_norm.KIND: NORM,
    group_norm.KIND: NORM,
    rms_norm.KIND: NORM,
    embedding.KIND: TABLE,
    position.LEARNED: TABLE,
    parametric.KIND: Form(_write_prelu, lambda layer, theirs: {"slope": theirs["weight"]}),
    attention.KIND: Form(_write_attention, _read_attention),
    attention.CROSS: Form(_write_attention, _read_attention),
    recurrent.KIND: RECURRENT,
    lstm.KIND: RECURRENT,
    gru.KIND: Form(_write_gru, _read_gru),
}
"""Of each kind, the form of the module of PyTorch that it is."""

MODULES = {
    attention.KIND: ATTENTION,
    attention.CROSS: ATTENTION,
    gated.KIND: separate([LINEAR, {"v": LINEAR["w"], "c": LINEAR["b"]}]),
}
"""Of some kinds, their form as several modules: projections of attention, the two matrices of a gated layer."""

_OF_RECURRENT = re.compile(r"(weight|bias)_(ih|hh)((?:_l\d+)?(?:_reverse)?)")


def grouped(names: Collection[str]) -> dict[str, tuple[Unit, str]]:
    """The module of each entry of a `state_dict`, and its name in it.

    A recurrent module of several layers or directions has a unit for each: "lstm.*_l0_reverse", * the name.

    Example:
        >>> grouped(["lstm.weight_ih_l0", "attention.in_proj_weight", "attention.out_proj.bias"])["lstm.weight_ih_l0"]
        ('lstm.*_l0', 'weight_ih')
    """

    def of(name: str) -> tuple[Unit, str]:
        unit, _, last = name.rpartition(".")
        before = f"{unit}." if unit else ""
        if found := _OF_RECURRENT.fullmatch(last):
            return f"{before}*{found[3]}", f"{found[1]}_{found[2]}"
        parent, _, inner = unit.rpartition(".")
        if inner == "out_proj":
            above = f"{parent}." if parent else ""
            if f"{above}in_proj_weight" in names or f"{above}q_proj_weight" in names:
                return parent, f"out_proj.{last}"
        return unit, last

    return {name: of(name) for name in names}


def unit(site: Site, given: Unit | None) -> Unit:
    """The name of a layer's module; by default that in an `nn.Sequential` of the structure of the network."""
    name = site.path.replace("/", ".") if given is None else given
    if isinstance(site.layer.kind, RecurrentKind) and isinstance(name, str) and "*" not in name:
        return f"{name}.*_l0".lstrip(".")
    return name


TORCH = Library("PyTorch", ".", FORMS, MODULES, grouped, unit)
