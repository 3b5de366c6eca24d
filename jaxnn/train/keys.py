"""The keys of a run: of its initial parameters, of each epoch, of each step."""

from __future__ import annotations

from typing import Any

import jax

from jaxnn.types import Key


def run_keys(key: Key) -> tuple[Key, Key]:
    """The key of the initial parameters, and the key that is folded with the epoch (from 1) for each epoch."""
    init_key, epochs_key = jax.random.split(key)
    return init_key, epochs_key


def epoch_key(key: Key, epoch: int) -> Key:
    """The key of an epoch (from 1), of which those of its order and its steps are split."""
    return jax.random.fold_in(run_keys(key)[1], epoch)


def step_keys(step_key: Key, i: Any) -> tuple[Key, Key]:
    """The keys of the network and of the augmentation in step i (from 0) of an epoch."""
    net_key, augment_key = jax.random.split(jax.random.fold_in(step_key, i))
    return net_key, augment_key
