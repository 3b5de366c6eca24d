"""Checks, inside `jax.shard_map`, that clipping and noise are those of whole gradients.

Norms are taken, and noise is drawn, on each device. They are those of an example's whole gradient only if every device
has all parameters, and if what differs between devices are the examples. The types of arrays tell, with the default
checks of `shard_map`; with check_vma=False they do not, and nothing here raises. Data that vary over a mesh axis are
taken for other examples on each of its devices: one copied along an axis and cast to vary over it cannot be told.
"""

from __future__ import annotations

import jax

from jaxnn.types import Params, PyTree
from jaxnn.varying import varying_axes


def require_own_examples(where: str, sums: PyTree, examples: PyTree) -> None:
    """Raise if gradients vary over mesh axes over which the examples do not.

    Each such device clips a gradient of the same example: of its own part of the parameters, or once more.

    Args:
        where: the function that speaks.
        sums: of the clipped gradients, before they are added up over the devices.
        examples: the data, and the weights.

    Raises:
        ValueError: they do.
    """
    if axes := sorted(varying_axes(sums) - varying_axes(examples)):
        raise ValueError(
            f"{where}: inside shard_map the gradients differ over the mesh axes {axes}, the examples do not: expected "
            "each device to have all parameters, and examples of its own. With shards of parameters (or of what the "
            "loss closes over) each device would clip by its part of the norm, and one example would move the whole by "
            "more than the bound. Leave these axes to the compiler: jax.jit with NamedSharding, or jax.shard_map with "
            "axis_names without them. If the examples differ, pass them, or their weights, as data that vary."
        )


def require_replicated(where: str, params: Params, sums: PyTree) -> None:
    """Raise if trained parameters vary over mesh axes: the sum over all devices, and its noise, would not be one.

    Args:
        where: the function that speaks.
        params: the parameters.
        sums: like params, None for those that are not trained; these may vary.

    Raises:
        ValueError: they do.
    """

    def check(path: tuple[object, ...], total: PyTree, leaf: PyTree) -> None:
        if total is not None and (axes := sorted(varying_axes(leaf))):
            raise ValueError(
                f"{where}: inside shard_map the parameters{jax.tree_util.keystr(path)} differ over the mesh axes "
                f"{axes}, expected the same on all devices: each device would add the noise to a sum of its own. Pass "
                "them as they come in by in_specs P(). Gather shards by jax.lax.all_gather(shard, axis, tiled=True, "
                "to='invarying') and take the device's rows of the result, or use jax.jit with NamedSharding, where "
                "the compiler gathers."
            )

    jax.tree_util.tree_map_with_path(check, sums, params, is_leaf=lambda x: x is None)
