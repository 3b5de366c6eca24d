"""Parameters of flax.linen's modules as those of our networks, and back. Flax itself is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxnn.interchange.conversion import names_in, on_host, read, shapes_of, write
from jaxnn.interchange.linen_forms import LINEN
from jaxnn.interchange.matching import Names, Unit
from jaxnn.layers.base import Example, Layer, require_net
from jaxnn.types import Params, State

STATISTICS = ("mean", "var")
"""Names of what flax has in the collection "batch_stats"."""


def from_linen(
    net: Layer, variables: Mapping[str, Any], example: Example, *, names: Names | None = None
) -> tuple[Params, State]:
    """Parameters and state of a network from the variables of a flax.linen module that computes the same.

    Layouts are those of flax, except that kernels of transposed convolutions are reversed (flax: `ConvTranspose` with
    its default `transpose_kernel=False`; "VALID" outputs agree for strides up to the window), and that heads have an
    axis of their own in attention and gates a module of their own in recurrent cells.

    Only arrays are converted. The two networks must agree in what is no array: eps (flax: 1e-6 of layer, group and RMS
    norm, here 1e-5; 1e-5 of batch norm in both), GELU (`nn.gelu` approximates by tanh unless approximate=False; `Gelu`
    is exact), padding ("SAME" by default in flax), the mean that `use_fast_variance` rounds otherwise. The running
    variance is biased in flax, unbiased here: in evaluation mode both use what they have.

    Args:
        net: the network.
        variables: {"params": ..., "batch_stats": ...}, as `module.init` returns it.
        example: shape of ONE example, as for `net.init`; for tokens a `jax.ShapeDtypeStruct`.
        names: path of our layer, such as "2/0/1", -> path of the module, such as "Block_0/LayerNorm_0"; a tuple where
            ours is several modules (attention as separate dense projections, `GatedDense`: w, v). Layers not named are
            matched in the order of the variables, each with the next module of its names and shapes; once a function of
            JAX has sorted the variables, by the numbers in their names. `linen_names` returns the result.

    Returns:
        (params, state), JAX arrays in the dtypes of the variables; running statistics are float32 at least.

    Raises:
        TypeError: a variable is not an array.
        ValueError: a layer or a module that is left over, a missing variable, a wrong shape, a layer that flax has not,
            modules of one shape whose order is not known.

    Example:
        >>> import numpy as np
        >>> from jaxnn.layers import Dense
        >>> variables = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
        >>> from_linen(Dense(2), variables, (3,))[0]["w"].shape
        (3, 2)
    """
    shapes = shapes_of("from_linen", net, example)
    return read("from_linen", LINEN, net, shapes, on_host("from_linen", _flat("from_linen", variables)), names, {})


def to_linen(net: Layer, params: Params, state: State, *, names: Names | None = None) -> dict[str, Any]:
    """The variables of a flax.linen module from the parameters and state of a network; the inverse of `from_linen`.

    Args:
        net, params, state: the network, and what its `init` or training returned.
        names: as for `from_linen`. Layers not named are called "layers_2/layers_0" by their paths, as in an
            `nn.Sequential` whose parts stand at the same places. For another module pass
            `linen_names(net, module.init(...), example)`.

    Returns:
        {"params": ...}, with running statistics also {"batch_stats": ...}: nested dicts of NumPy arrays.

    Raises:
        ValueError: a layer that flax has not, names of layers that do not exist, two layers with one name.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from jaxnn.layers import Dense
        >>> jax.tree.map(np.shape, to_linen(Dense(2), *Dense(2).init(jax.random.key(0), (3,)), names={"": "head"}))
        {'params': {'head': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    require_net("to_linen", net)
    variables: dict[str, Any] = {"params": {}}
    for name, x in write("to_linen", LINEN, net, (params, state), names, {}).items():
        *modules, last = name.split("/")
        place = variables.setdefault("batch_stats" if last in STATISTICS else "params", {})
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = x
    return variables


def linen_names(
    net: Layer, variables: Mapping[str, Any], example: Example, *, names: Names | None = None
) -> dict[str, Unit]:
    """Path of each layer -> path of its module, as `from_linen` matches them: to check, and for `to_linen`.

    Args, Raises: as for `from_linen`.

    Example:
        >>> import numpy as np
        >>> from jaxnn.layers import Dense
        >>> variables = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
        >>> linen_names(Dense(2), variables, (3,))
        {'': 'Dense_0'}
    """
    shapes = shapes_of("linen_names", net, example)
    return names_in("linen_names", LINEN, net, shapes, on_host("linen_names", _flat("linen_names", variables)), names)


def _flat(where: str, variables: Any) -> dict[str, Any]:
    """The arrays of all collections by path, without the collection: their names differ."""
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError(
            f'{where}: variables must be a dict with "params", as module.init returns it, got '
            f"{list(variables) if isinstance(variables, Mapping) else type(variables).__name__}. "
            'Of parameters alone: {"params": params}.'
        )
    found: dict[str, Any] = {}

    def add(tree: Any, path: str) -> None:
        if isinstance(tree, Mapping):
            for name, below in tree.items():
                add(below, f"{path}/{name}".lstrip("/"))
        else:
            found[path] = getattr(tree, "value", tree) if hasattr(tree, "unbox") else tree

    for collection in ("params", "batch_stats"):
        add(variables.get(collection, {}), "")
    return found
