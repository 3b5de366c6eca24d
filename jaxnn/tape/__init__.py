"""The tape of a backward pass: for each use of a parameter its input a and the cotangent delta of its output.

A use is named by the KIND of linear operation, not by a layer: a parameter takes part in a matrix product, a
convolution, a sum, a scaling or a lookup, and the gradient of example i is a known function of (a_i, delta_i). N counts
examples, T the positions at which one example uses the parameter. delta is the derivative of the SUMMED loss, so that
row i is the derivative of example i's own loss.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.tape.tapes import Columns, Tape, errors_of, of_weighted_losses, with_errors
from jaxnn.tape.uses import (
    STATIC,
    Addition,
    Convolution,
    GroupedProduct,
    Lookup,
    Placed,
    Product,
    Scaling,
    SoftmaxProduct,
    Unplaced,
    Use,
    Whole,
    counted,
    error_of,
    errors,
    positions,
    replaced,
    total,
    weighted,
    whole,
    wide_total,
)

__all__ = [
    "STATIC",
    "Addition",
    "Columns",
    "Convolution",
    "GroupedProduct",
    "Lookup",
    "Placed",
    "Product",
    "Scaling",
    "SoftmaxProduct",
    "Tape",
    "Unplaced",
    "Use",
    "Whole",
    "counted",
    "error_of",
    "errors",
    "errors_of",
    "of_weighted_losses",
    "positions",
    "replaced",
    "total",
    "weighted",
    "whole",
    "wide_total",
    "with_errors",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
