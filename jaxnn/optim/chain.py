"""Transformations applied one after another."""

from __future__ import annotations

from typing import Any

from jaxnn.optim.base import Optimizer, Transformation, call_update, dtypes_of, widen_floats
from jaxnn.optim.spec import specified
from jaxnn.types import Params, PyTree


@specified
def chain(*links: Transformation) -> Optimizer:
    """Apply transformations in turn, each to the updates of the one before.

    The links work in the accumulation dtype, `init` too, and the result is rounded once to the dtype of the parameters
    (without params, of the updates). States are kept as the links return them. Extra arguments go to every link that
    takes any.

    Args:
        links: Optimizers, or optax's transformations.

    Returns:
        Optimizer whose state is the tuple of the links' states.

    Raises:
        TypeError: a list of links instead of separate arguments; a link without `init` and `update`.
        ValueError: at `update`, a state of another number of links.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> opt = chain(optim.clip_by_global_norm(1.0), optim.scale(-0.5))
        >>> opt.update(jnp.array([3.0, 4.0]), opt.init(jnp.zeros(2)))[0]
        Array([-0.3, -0.4], dtype=float32)
    """
    if len(links) == 1 and isinstance(links[0], list):
        raise TypeError(
            f"chain: links are separate arguments, got a list of {len(links[0])}. Unpack it: chain(*links)."
        )
    for i, link in enumerate(links):
        require_transformation("chain", f"link {i}", link)

    def init(params: Params) -> tuple[Any, ...]:
        wide = widen_floats(params)
        return tuple(link.init(wide) for link in links)

    def update(
        updates: PyTree, state: tuple[Any, ...], params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, tuple[Any, ...]]:
        if len(state) != len(links):
            raise ValueError(
                f"chain: the state must hold one state for each of {len(links)} links, got {len(state)}. "
                "Pass the state that this chain's own init made."
            )
        like, wide, new_states = updates if params is None else params, widen_floats(params), []
        updates = widen_floats(updates)
        for link, kept in zip(links, state, strict=True):
            updates, new = call_update(link, updates, kept, wide, extra)
            new_states.append(new)
        return dtypes_of(updates, like), tuple(new_states)

    return Optimizer(init, update)


@specified
def named_chain(*links: tuple[str, Transformation]) -> Optimizer:
    """`chain` of (name, transformation) pairs; the state is a dict by name.

    Raises:
        ValueError: two links with the same name.
        TypeError: a link that is not such a pair.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn import optim
        >>> named_chain(("step", optim.sgd(0.1))).init(jnp.zeros(1))["step"].count
        Array(0, dtype=int32)
    """
    for link in links:
        if not (isinstance(link, tuple) and len(link) == 2 and isinstance(link[0], str)):
            raise TypeError(f"named_chain: each link must be a pair (name, optimizer), got {link!r}.")
    names = [name for name, _ in links]
    if len(set(names)) < len(names):
        raise ValueError(f"named_chain: the names must differ, got {names}.")
    inner = chain(*(link for _, link in links))

    def init(params: Params) -> dict[str, Any]:
        return dict(zip(names, inner.init(params), strict=True))

    def update(
        updates: PyTree, state: dict[str, Any], params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, dict[str, Any]]:
        updates, new = inner.update(updates, tuple(state[name] for name in names), params, **extra)
        return updates, dict(zip(names, new, strict=True))

    return Optimizer(init, update)


def require_transformation(where: str, name: str, value: Any) -> Any:
    """The value; TypeError unless it has `init` and `update`."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        hint = " Call the factory: optim.adam(1e-3)." if callable(value) else ""
        raise TypeError(f"{where}: {name} must be an optimizer with init and update, got {value!r}.{hint}")
    return value
