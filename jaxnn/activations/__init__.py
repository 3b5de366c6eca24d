"""Activation functions, each with its derivative beside it.

Every activation is `name(z, *, settings)`; `name_derivative(z, *, settings)` is its derivative at z (not a function of
the output). Both are element-wise on z of any shape and real floating dtype (else TypeError), compute in float32 for
bfloat16 and float16, and return the shape and dtype of z. Activations propagate NaN (derivatives of piecewise linear
ones do not). A setting that is not one number in its range raises ValueError or TypeError; a derivative takes, and
checks, all settings of its activation.

At a kink the derivative is that of the inactive branch (z <= 0 of a rectifier, the plateau of a clipped ramp).
`jax.grad` of these functions agrees; that of `jax.nn.leaky_relu` and `jax.nn.hard_tanh` is 1 there:

| activation | kink at z | derivative there |
|---|---|---|
| sign, perceptron_sign, heaviside | 0 (a jump) | 0 |
| piecewise_linear | -1/2, 1/2 | 0 |
| hard_tanh | -1, 1 | 0 |
| relu | 0 | 0 |
| leaky_relu | 0 | negative_slope |
| elu | 0 (unless alpha = 1) | alpha |
| selu | 0 | 1.7581 |

Shape, range, monotony (never decreasing) and derivative at 0 under default settings; `properties(activation)` computes
a line, under any settings. Steps have derivative 0 wherever it exists, so gradient descent cannot train them; a network
of linear units is linear, however many layers it has.

| activation | shape | range | bounded | monotone | derivative at 0 |
|---|---|---|---|---|---|
| `sign` | steps | -1 to 1 | yes | yes | 0 |
| `perceptron_sign` | steps | -1 to 1 | yes | yes | 0 |
| `heaviside` | steps | 0 to 1 | yes | yes | 0 |
| `linear` | linear | -inf to inf | no | yes | 1 |
| `piecewise_linear` | piecewise linear | 0 to 1 | yes | yes | 1 |
| `hard_tanh` | piecewise linear | -1 to 1 | yes | yes | 1 |
| `sigmoid` | curved | 0 to 1 | yes | yes | 0.25 |
| `tanh` | curved | -1 to 1 | yes | yes | 1 |
| `softplus` | curved | 0 to inf | no | yes | 0.5 |
| `relu` | piecewise linear | 0 to inf | no | yes | 0 |
| `relu_squared` | curved | 0 to inf | no | yes | 0 |
| `leaky_relu` | piecewise linear | -inf to inf | no | yes | 0.01 |
| `elu` | curved | -1 to inf | no | yes | 1 |
| `selu` | curved | -1.76 to inf | no | yes | 1.7581 |
| `gelu` | curved | -0.17 to inf | no | no | 0.5 |
| `gelu_tanh` | curved | -0.17 to inf | no | no | 0.5 |
| `silu` | curved | -0.28 to inf | no | no | 0.5 |
| `mish` | curved | -0.31 to inf | no | no | 0.6 |

Sigmoid and tanh approach their limits; in floating point they reach them.

`softmax` and `log_softmax` act on a vector; they come with the products of their Jacobians, `*_jvp` and `*_vjp`.
`derivative_of(activation)` looks up an element-wise derivative.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.activations.gates import (
    gelu,
    gelu_derivative,
    gelu_tanh,
    gelu_tanh_derivative,
    mish,
    mish_derivative,
    silu,
    silu_derivative,
)
from jaxnn.activations.properties import Properties, properties
from jaxnn.activations.rectifiers import (
    SELU_ALPHA,
    SELU_SCALE,
    elu,
    elu_derivative,
    leaky_relu,
    leaky_relu_derivative,
    relu,
    relu_derivative,
    relu_squared,
    relu_squared_derivative,
    selu,
    selu_derivative,
)
from jaxnn.activations.sigmoids import sigmoid, sigmoid_derivative, softplus, softplus_derivative, tanh, tanh_derivative
from jaxnn.activations.softmax import log_softmax, log_softmax_jvp, log_softmax_vjp, softmax, softmax_jvp, softmax_vjp
from jaxnn.activations.steps import (
    hard_tanh,
    hard_tanh_derivative,
    heaviside,
    heaviside_derivative,
    linear,
    linear_derivative,
    perceptron_sign,
    perceptron_sign_derivative,
    piecewise_linear,
    piecewise_linear_derivative,
    sign,
    sign_derivative,
)
from jaxnn.activations.table import DERIVATIVES, derivative_of

__all__ = [
    "DERIVATIVES",
    "SELU_ALPHA",
    "SELU_SCALE",
    "Properties",
    "derivative_of",
    "elu",
    "elu_derivative",
    "gelu",
    "gelu_derivative",
    "gelu_tanh",
    "gelu_tanh_derivative",
    "hard_tanh",
    "hard_tanh_derivative",
    "heaviside",
    "heaviside_derivative",
    "leaky_relu",
    "leaky_relu_derivative",
    "linear",
    "linear_derivative",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "mish",
    "mish_derivative",
    "perceptron_sign",
    "perceptron_sign_derivative",
    "piecewise_linear",
    "piecewise_linear_derivative",
    "properties",
    "relu",
    "relu_derivative",
    "relu_squared",
    "relu_squared_derivative",
    "selu",
    "selu_derivative",
    "sigmoid",
    "sigmoid_derivative",
    "sign",
    "sign_derivative",
    "silu",
    "silu_derivative",
    "softmax",
    "softmax_jvp",
    "softmax_vjp",
    "softplus",
    "softplus_derivative",
    "tanh",
    "tanh_derivative",
]  # fmt: skip

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
