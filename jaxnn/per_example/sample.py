"""Small tapes for the examples in this folder."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxnn.tape import Addition, Columns, Product, Tape


def sample_tape() -> Tape:
    """z = a w + b on two examples, a = (1, 2), (3, 0) and delta = 1, 2: the gradients of w are (1, 2) and (6, 0), those
    of b 1 and 2.
    """
    a, delta = jnp.array([[[1.0, 2.0]], [[3.0, 0.0]]]), jnp.array([[[1.0]], [[2.0]]])
    leaves = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((2, 1), jnp.float32)
    uses = (Addition(delta),), (Product(a, delta),)
    return Tape(jnp.zeros(2), delta[:, 0], uses, ("['b']", "['w']"), jax.tree.structure({"b": 0, "w": 0}), leaves)


def sample_columns() -> Columns:
    """`sample_tape` with two columns: the two examples have delta = 1, 1 in the first and 1, 0 in the second."""
    a, delta = jnp.array([[[1.0, 2.0]], [[3.0, 0.0]]]), jnp.array([[[[1.0]], [[1.0]]], [[[1.0]], [[0.0]]]])
    return Columns(dataclasses.replace(sample_tape(), uses=((Addition(delta),), (Product(a, delta),))), 2, True)
