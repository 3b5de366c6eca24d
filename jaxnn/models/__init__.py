"""Networks made of layers (floor 4): `serial`, `residual`, `parallel` compose; `linear`, `mlp`, `cnn` are composed."""

from jaxnn.models.combinators import parallel, residual, serial
from jaxnn.models.networks import cnn, linear, mlp
from jaxnn.models.summary import summary

__all__ = ["cnn", "linear", "mlp", "parallel", "residual", "serial", "summary"]
