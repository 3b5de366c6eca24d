"""Parameter initializers: functions `(key, shape, dtype=jnp.float32) -> Array`.

`zeros`, `he_normal`, ... are initializers; `normal(0.01)`, `orthogonal()`, ... return one.

Fans. The last two axes of a weight are (in, out), and the others are its receptive field:

| weight | shape | fan_in | fan_out |
|---|---|---|---|
| dense | (D_in, D_out) | D_in | D_out |
| convolution, HWIO | (H, W, C_in, C_out) | H W C_in | H W C_out |
| grouped convolution | (H, W, C_in / groups, C_out) | H W C_in / groups | H W C_out |

fan_in is the number of terms summed into one output. In a grouped convolution one input reaches only H W C_out / groups
outputs; the shape does not determine the number of groups, so fan_out counts all C_out.

Samples are drawn in float32 (float64 for float64) and rounded to `dtype`, so bfloat16 has the same distribution. A
`dtype` that is not floating and a key that is not typed raise TypeError; without a key, random ones raise ValueError.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.initializers.base import Initializer
from jaxnn.initializers.distributions import centered_uniform, constant, normal, truncated_normal, uniform, zeros
from jaxnn.initializers.orthogonal import orthogonal
from jaxnn.initializers.scaling import (
    Distribution,
    Fan,
    fan_avg,
    fan_in,
    fan_out,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    variance_scaling,
)

__all__ = [
    "Distribution",
    "Fan",
    "Initializer",
    "centered_uniform",
    "constant",
    "fan_avg",
    "fan_in",
    "fan_out",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zeros",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
