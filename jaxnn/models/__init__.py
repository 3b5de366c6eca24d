"""Networks: the combinators `serial`, `residual`, `parallel`, `stack`, and networks made of them.

`linear`, `mlp`, `cnn`, `separable_conv`; `transformer` (decoder or encoder), `encoder_decoder`, and their `block`;
`recurrent`, and `bidirectional`, two recurrent layers of which one reads from the end. `generate` decodes from them,
with `sample`; `begin` makes the state for reading sequences piece by piece.
`summary` is a table of layers, parameters and operations (`flops`); `roles` tells optimizers which parameter is what.

Weights are (in, out) and rows are examples, y = x w + b: the transpose of W in z = W a + b for a column a.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.models.combinators import parallel, residual, serial
from jaxnn.models.decoding import begin, generate
from jaxnn.models.flops import flops
from jaxnn.models.networks import cnn, linear, mlp, separable_conv
from jaxnn.models.recurrent import bidirectional, recurrent
from jaxnn.models.roles import roles
from jaxnn.models.sampling import sample
from jaxnn.models.stack import stack
from jaxnn.models.summary import summary
from jaxnn.models.transformer import block, encoded, encoder_decoder, mlp_of, transformer

__all__ = [
    "begin",
    "bidirectional",
    "block",
    "cnn",
    "encoded",
    "encoder_decoder",
    "flops",
    "generate",
    "linear",
    "mlp",
    "mlp_of",
    "parallel",
    "recurrent",
    "residual",
    "roles",
    "sample",
    "separable_conv",
    "serial",
    "stack",
    "summary",
    "transformer",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
