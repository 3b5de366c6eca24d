"""Statistics of per-example gradients inside the backward pass."""

from jaxnn.per_example.streaming.gradient import value_and_grad

__all__ = ["value_and_grad"]
