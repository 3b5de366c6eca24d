"""Outputs of many small nets by few programs: nets of one architecture share one, hidden layers can be widened."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.classic.threshold import Network
from jaxnn.layers import Dense
from jaxnn.models import serial

PROGRAMS: dict[str, Any] = {}


def run(network: Network, x: Any) -> np.ndarray:
    """The first output (N,) at x (N, D)."""
    program = PROGRAMS.setdefault(repr(network.net), jax.jit(network.net.predict))
    return np.asarray(program(network.params, (), jnp.asarray(x, float)))[:, 0]


def widened(network: Network, hidden: int) -> Network:
    """A net of one hidden layer with units added that nothing listens to."""
    first, _, output, *rest = network.params
    extra = hidden - first["b"].size
    first = {"w": np.pad(first["w"], ((0, 0), (0, extra))), "b": np.pad(first["b"], (0, extra))}
    output = {**output, "w": np.pad(output["w"], ((0, extra), (0, 0)))}
    return Network(serial(Dense(hidden), *network.net.parts[1:]), (first, (), output, *rest))
