"""Checks, inside `jax.shard_map`, that each device clips and noises gradients with respect to all parameters.

Each device computes norms and draws noise. Both are right only if every device has all parameters and the devices
differ only in their examples. With the default checks of `shard_map`, the types of arrays show whether this holds;
with check_vma=False they do not, and nothing here raises. Data that vary over a mesh axis are assumed to be different
examples on its devices: a copy that is cast to vary over the axis is not detected.
"""

from __future__ import annotations

import jax

from jaxnn.types import Params, PyTree
from jaxnn.varying import varying_axes


def require_own_examples(where: str, sums: PyTree, examples: PyTree) -> None:
    """Raises ValueError if per-device sums of gradients vary over mesh axes over which the examples do not.

    Each such device clips a gradient of the same example: of its own shard of the parameters, or once more.
    """
    if axes := sorted(varying_axes(sums) - varying_axes(examples)):
        raise ValueError(
            f"{where}: inside shard_map the gradients differ over the mesh axes {axes}, the examples do not: expected "
            "each device to have all parameters, and examples of its own. With shards of parameters (or of what the "
            "loss closes over) each device would clip by its shard's norm, and one example could change the sum by "
            "more than the bound. Leave these axes to the compiler: jax.jit with NamedSharding, or jax.shard_map with "
            "axis_names without them. If the examples differ, pass them, or their weights, as data that vary."
        )


def require_replicated(where: str, params: Params, sums: PyTree) -> None:
    """Raises ValueError if trained parameters vary over mesh axes, since there must be one sum, noised once; sums are
    like params, None for those that are not trained, which may vary."""

    def check(path: tuple[object, ...], total: PyTree, leaf: PyTree) -> None:
        if total is not None and (axes := sorted(varying_axes(leaf))):
            raise ValueError(
                f"{where}: inside shard_map the parameters{jax.tree_util.keystr(path)} differ over the mesh axes "
                f"{axes}, expected them replicated: each device would add the noise to a sum of its own. Pass them by "
                "in_specs P(). Gather shards by jax.lax.all_gather(shard, axis, tiled=True, to='invarying') and take "
                "the device's rows of the result, or use jax.jit with NamedSharding, where the compiler gathers."
            )

    jax.tree_util.tree_map_with_path(check, sums, params, is_leaf=lambda x: x is None)
