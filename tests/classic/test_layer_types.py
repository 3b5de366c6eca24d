"""Sizes and costs of layers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxnn import data
from jaxnn.classic import layer_types
from jaxnn.classic.trials import few_digits


@pytest.mark.slow
def test_parameters_and_multiplications_are_those_of_the_formulas() -> None:
    found = layer_types.by_type(examples=few_digits(50), seeds=1, epochs=1)
    weights = {  # (parameters, multiplications) of the hidden layer, and its outputs
        "none: linear": (0, 0, 64),
        "dense": (65 * 64, 64 * 64, 64),
        "1 x 1 convolution": (2 * 16, 64 * 16, 1024),
        "3 x 3 convolution": (10 * 16, 64 * 16 * 9, 1024),
        "3 x 3, max-pool": (10 * 16, 64 * 16 * 9, 256),
    }
    assert found.names == tuple(weights)
    for i, (parameters, products, outputs) in enumerate(weights.values()):
        assert found.parameters[i] == parameters + 10 * (outputs + 1)
        assert found.multiplications[i] == products + 10 * outputs
    assert found.validation.shape == (5, 1)


def test_bad_types_and_examples() -> None:
    with pytest.raises(ValueError, match=r"no type 'dens' \(did you mean 'dense'\?\)"):
        layer_types.by_type(["dens"])
    part = data.make_dataset(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match=r"must be images \(N, H, W, C\), got \(3, 3\)"):
        layer_types.by_type(examples=data.Splits(part, part, part))


@pytest.mark.parametrize("names", [(), "dense"])
def test_names_that_are_no_list_are_named(names: Any) -> None:
    with pytest.raises(ValueError, match="a sequence of at least one type"):
        layer_types.by_type(names)
