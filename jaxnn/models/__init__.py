"""Networks: the combinators `serial`, `residual`, `parallel`, and `linear`, `mlp`, `cnn` made of them.

Weights are (in, out) and rows are examples, y = x w + b: the transpose of W in z = W a + b for a column a.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.models.combinators import parallel, residual, serial
from jaxnn.models.networks import cnn, linear, mlp
from jaxnn.models.summary import summary

__all__ = ["cnn", "linear", "mlp", "parallel", "residual", "serial", "summary"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
