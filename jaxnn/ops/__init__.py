"""Linear maps of arrays, and max-pooling, with their adjoints.

A linear map y = A(x; w) comes with the two maps that backpropagation needs: the adjoint in x, from the cotangent dy to
dx, and the adjoint in w, from (x, dy) to the gradient of w. The tests check both against `jax.vjp`.

| map | adjoint in the input | adjoint in the parameter |
|---|---|---|
| `matmul.linear` | `matmul.linear_input_grad` | `matmul.linear_weight_grad`, `matmul.bias_grad` |
| `conv.conv` | `conv.conv_input_grad` | `conv.conv_weight_grad` |
| `patches.conv_patches` (im2col) | (by `jax.vjp`) | |
| `pooling.max_pool` | `pooling.max_pool_input_grad` (of its derivative) | |
| `pooling.average_pool` | `pooling.average_pool_input_grad` | |
| `attention.attend` | `attention.attend_grads` (of its derivative) | |
| `rotary.rotate` | itself, by the negative angles | |
| `gather.take_rows` | (integer input) | `gather.take_rows_weight_grad` |
| `views.View`: reshapes, transpositions, slices, broadcasts | `views.View.adjoint` | |
"""

from typing import TYPE_CHECKING

from jaxnn import missing

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
