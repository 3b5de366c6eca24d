"""Transformations of a part of the parameters, and one for each label."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax

from jaxnn.optim.base import Optimizer, Transformation, dtypes_of
from jaxnn.optim.descent import known_bool, mask_tree
from jaxnn.optim.inner import init_inner, require_inner, update_inner
from jaxnn.optim.scale import set_to_zero
from jaxnn.optim.spec import specified
from jaxnn.tree import called
from jaxnn.types import Params, PyTree


class MaskedNode(NamedTuple):
    """Placeholder of a masked leaf; it has no leaves, so maps over the pytree skip it."""


class MaskedState(NamedTuple):
    """`inner_state`: that of the wrapped transformation, with a `MaskedNode` where a parameter is masked out."""

    inner_state: Any


class PartitionState(NamedTuple):
    """`inner_states`: by label, the `MaskedState` of its transformation."""

    inner_states: dict[Hashable, MaskedState]


@specified
def masked(
    inner: Transformation, mask: PyTree | Callable[[Params], PyTree], *, mask_compatible_extra_args: bool = False
) -> Optimizer:
    """Transform only where the mask is True; other updates are unchanged, and have no state.

    Args:
        inner: Optimizer, or an optax transformation.
        mask: pytree of bools like the parameters or a prefix of it, or a function of the parameters that returns one.
            The bools must be known while tracing.
        mask_compatible_extra_args: whether extra arguments that are pytrees like the updates are masked too.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
        >>> opt = masked(optim.add_decayed_weights(0.5), {"w": True, "b": False})
        >>> opt.update(params, opt.init(params), params)[0]
        {'b': Array([1.], dtype=float32), 'w': Array([1.5], dtype=float32)}
    """
    require_inner("masked", inner)

    def init(params: Params) -> MaskedState:
        if _is_placeholder(params):
            return MaskedState(init_inner(inner, params))
        return MaskedState(init_inner(inner, _hide(mask_tree("masked", mask, params), params)))

    def update(
        updates: PyTree, state: MaskedState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, MaskedState]:
        grads = updates
        chosen = mask_tree("masked", mask, grads, params)
        seen = None if params is None else _hide(mask_tree("masked", mask, params), params)
        if mask_compatible_extra_args:
            structure: Any = jax.tree.structure(grads)
            extra = {k: _hide(chosen, v) if jax.tree.structure(v) == structure else v for k, v in extra.items()}
        updates, new = update_inner(inner, _hide(chosen, grads), state.inner_state, seen, extra)
        whole = jax.tree.map(lambda m, new, old: new if m else old, chosen, updates, grads)
        return dtypes_of(whole, grads if params is None else params), MaskedState(new)

    return Optimizer(init, update)


@specified
def partition(
    transforms: Mapping[Any, Transformation],
    param_labels: PyTree | Callable[[Params], PyTree],
    *,
    mask_compatible_extra_args: bool = False,
) -> Optimizer:
    """Apply to each parameter the transformation of its label.

    Args:
        transforms: Optimizers, or optax transformations, by label.
        param_labels: pytree of labels like the parameters or a prefix of it, or a function of the parameters that
            returns one. `set_to_zero()` as a label's transformation freezes its parameters.
        mask_compatible_extra_args: whether extra arguments that are pytrees like the updates are masked too.

    Raises:
        ValueError: a label without a transformation; labels that are not a prefix of the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> params = {"w": jnp.ones(1), "b": jnp.ones(1)}
        >>> opt = partition({"fast": optim.sgd(1.0), "slow": optim.sgd(0.1)}, {"w": "slow", "b": "fast"})
        >>> opt.update(params, opt.init(params), params)[0]
        {'b': Array([-1.], dtype=float32), 'w': Array([-0.1], dtype=float32)}
    """
    for label, inner in transforms.items():
        require_inner(f"partition: {label!r}", inner)

    def parts(tree: PyTree) -> dict[Hashable, Optimizer]:
        labels = called(param_labels, tree)
        try:
            jax.tree.map(lambda _, part: part, labels, tree)
        except (ValueError, TypeError) as error:
            raise ValueError(
                "partition: the labels must be a pytree like the parameters, or a prefix of it, got "
                f"{jax.tree.structure(labels)} for parameters {jax.tree.structure(tree)}. {error}"
            ) from None
        found = set(jax.tree.leaves(labels))
        if not found <= set(transforms):
            raise ValueError(
                f"partition: each label needs a transformation, got labels {sorted(map(str, found))} and "
                f"transformations for {sorted(map(str, transforms))}. Freeze parameters by set_to_zero()."
            )
        return {
            label: masked(
                inner,
                jax.tree.map(lambda other, label=label: bool(other == label), labels),
                mask_compatible_extra_args=mask_compatible_extra_args,
            )
            for label, inner in transforms.items()
        }

    def init(params: Params) -> PartitionState:
        if _is_placeholder(params):
            return PartitionState(
                {label: MaskedState(init_inner(inner, params)) for label, inner in transforms.items()}
            )
        return PartitionState({label: part.init(params) for label, part in parts(params).items()})

    def update(
        updates: PyTree, state: PartitionState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, PartitionState]:
        states = {}
        for label, part in parts(updates if params is None else params).items():
            updates, states[label] = part.update(updates, state.inner_states[label], params, **extra)
        return updates, PartitionState(states)

    return Optimizer(init, update)


multi_transform = partition


@specified
def freeze(mask: PyTree | Callable[[Params], PyTree]) -> Optimizer:
    """Updates of 0 where the mask is True, others unchanged. Put it last in a chain, or use `selective_transform`.

    Args:
        mask: as for `masked`; a single bool freezes everything or nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> opt, grads = freeze({"w": False, "b": True}), {"w": jnp.ones(1), "b": jnp.ones(1)}
        >>> opt.update(grads, opt.init(grads))[0]
        {'b': Array([0.], dtype=float32), 'w': Array([1.], dtype=float32)}
    """
    return masked(set_to_zero(), mask)


@specified
def selective_transform(optimizer: Transformation, *, freeze_mask: PyTree) -> Optimizer:
    """The optimizer where the mask is False; updates 0, and no state, where it is True.

    Args:
        optimizer: Optimizer, or an optax transformation.
        freeze_mask: pytree of bools like the parameters or a prefix of it, or a function of the parameters that
            returns one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> opt = selective_transform(optim.sgd(0.1), freeze_mask={"w": False, "b": True})
        >>> grads = {"w": jnp.ones(1), "b": jnp.ones(1)}
        >>> opt.update(grads, opt.init(grads))[0]
        {'b': Array([0.], dtype=float32), 'w': Array([-0.1], dtype=float32)}
    """

    def labels(params: Params) -> PyTree:
        mask = called(freeze_mask, params)
        return jax.tree.map(lambda frozen: "freeze" if known_bool(frozen) else "train", mask)

    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)


def _hide(mask: PyTree, tree: PyTree) -> PyTree:
    """The pytree with `MaskedNode()` where the mask is False."""
    return jax.tree.map(lambda m, x: x if m else MaskedNode(), mask, tree)


def _is_placeholder(params: Params) -> bool:
    """Whether this is the placeholder that `tree_map_params`, ours or optax's, passes to `init`."""
    structure: Any = jax.tree.structure(params)
    return structure.num_leaves == 0 and not isinstance(params, dict | list | tuple | None)
