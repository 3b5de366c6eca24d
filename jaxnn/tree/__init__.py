"""Arithmetic on pytrees, with the functions of `optax.tree`; `None` leaves pass through.

Functions of moments and states are in `optim`: `update_moment`, `bias_correction`, `tree_map_params` and so on. `max`,
`min`, `set` and `sum` shadow builtins: write `tree.sum(...)`, and do not import *.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.tree.arithmetic import (
    add,
    add_scale,
    allclose,
    clip,
    conj,
    div,
    max,
    min,
    mul,
    norm,
    real,
    scale,
    size,
    sub,
    subtract,
    sum,
    vdot,
    where,
)
from jaxnn.tree.finding import NamedTupleKey, get, get_all_with_path, set
from jaxnn.tree.leaves import BIAS_NAMES, all_finite, called, is_weight, named_leaves
from jaxnn.tree.making import (
    batch_shape,
    cast,
    cast_like,
    dtype,
    full_like,
    ones_like,
    random_like,
    split_key_like,
    unwrap_random_key_data,
    zeros_like,
)
from jaxnn.tree.packing import pack

__all__ = [
    "BIAS_NAMES",
    "NamedTupleKey",
    "add",
    "add_scale",
    "all_finite",
    "allclose",
    "batch_shape",
    "called",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "is_weight",
    "max",
    "min",
    "mul",
    "named_leaves",
    "norm",
    "ones_like",
    "pack",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "subtract",
    "sum",
    "unwrap_random_key_data",
    "vdot",
    "where",
    "zeros_like",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
