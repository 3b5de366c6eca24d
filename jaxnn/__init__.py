"""Functional neural networks in JAX: see the README for a tour and `help(jaxnn.<room>)` for each room."""

__version__ = "0.1.0"
