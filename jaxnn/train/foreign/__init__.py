"""Models of other libraries as layers: `linen` and `nnx` of flax, `equinox`; `base` is what they share."""
