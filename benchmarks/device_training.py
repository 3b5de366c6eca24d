"""Optimizer updates, epochs and sweeps: programs for accelerators (device_registry.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from benchmarks.device_networks import LOSS, MLP
from benchmarks.device_registry import I32, TARGETS, Case, program, shaped
from jaxnn import backprop, optim, train

OPTIMIZERS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
    "adam": (lambda: optim.adam(1e-3), lambda: optax.adam(1e-3)),
    "adam with 8-bit state": (lambda: optim.quantized_state(optim.adam(1e-3)), None),
    "sgd with momentum": (lambda: optim.sgd(1e-3, momentum=0.9), lambda: optax.sgd(1e-3, momentum=0.9)),
    "muon": (lambda: optim.muon(1e-3), lambda: optax.contrib.muon(1e-3)),
}
"""Ours and optax's."""


def weights() -> Any:
    """4 blocks of a transformer of width 512: 12.6 million parameters in 24 leaves."""
    d = 512
    block = {
        "attention": {"qkv": shaped((d, 3 * d)), "out": shaped((d, d))},
        "mlp": {"up": shaped((d, 4 * d)), "down": shaped((4 * d, d))},
        "norms": [shaped((d,)), shaped((d,))],
    }
    return [block] * 4


def update(opt: Any) -> Case:
    """One donated update and its application."""

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = opt.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), ()

    params = weights()
    return Case(step, ((params, jax.eval_shape(opt.init, params)), params), carries=True)


for _rule, (_ours, _theirs) in OPTIMIZERS.items():
    _rival = f"{_rule} update by optax" if _theirs else "adam update"
    _quick = () if _rule == "muon" else TARGETS
    program(f"{_rule} update", rivals=(_rival,), quick=_quick)(lambda make=_ours: update(make()))
    if _theirs:
        program(_rival, quick=_quick)(lambda make=_theirs: update(make()))

EXAMPLES, BATCH, RUNS = 60_000, 128, 16


def started(opt: Any) -> Any:
    return jax.eval_shape(lambda: train.init(MLP, opt, jax.random.key(0), (784,)))


def data(n: int = EXAMPLES) -> tuple[Any, Any]:
    return shaped((n, 784)), shaped((n,), I32)


def scan_by_hand(opt: Any, vg: Any) -> Callable[..., Any]:
    """An epoch as one writes it with optax: a scan over a permutation."""

    def epoch(ts: Any, x: Any, y: Any, key: Any) -> Any:
        steps = x.shape[0] // BATCH
        order = jax.random.permutation(key, x.shape[0])[: steps * BATCH].reshape(steps, BATCH)

        def step(ts: Any, index: Any) -> Any:
            (value, state), grads = vg(ts.params, ts.state, x[index], y[index])
            updates, opt_state = opt.update(grads, ts.opt_state, ts.params)
            return train.TrainState(optax.apply_updates(ts.params, updates), state, opt_state), value

        return jax.lax.scan(step, ts, order)

    return epoch


@program("mlp epoch", rivals=("mlp epoch by a scan with optax",), quick=("cuda",))
def _() -> Case:
    opt = optim.adam(1e-3)
    made = train.make_epoch(backprop.value_and_grad(MLP, LOSS), opt, batch_size=BATCH)
    return Case(made, (started(opt), *data(), jax.eval_shape(lambda: jax.random.key(0))), carries=True)


@program("mlp epoch by a scan with optax", quick=())
def _() -> Case:
    opt = optax.adam(1e-3)
    vg = jax.value_and_grad(train.mean_loss(MLP, LOSS), has_aux=True)
    return Case(scan_by_hand(opt, vg), (started(opt), *data(), jax.eval_shape(lambda: jax.random.key(0))), carries=True)


@program("mlp sweep of 16 runs", rivals=("mlp epoch",), quick=())
def _() -> Case:
    vg = backprop.value_and_grad(MLP, LOSS)

    def run(ts: Any, rate: Any, x: Any, y: Any, key: Any) -> Any:
        from jaxnn.train.pieces import scan_epoch

        return scan_epoch(vg, optim.adam(rate), batch_size=BATCH)(ts, x, y, key)

    one = started(optim.adam(1e-3))
    many = jax.tree.map(lambda s: shaped((RUNS, *s.shape), s.dtype), one)
    key = jax.eval_shape(lambda: jax.random.key(0))
    program = jax.vmap(run, (0, 0, None, None, None))
    return Case(program, (many, shaped((RUNS,)), *data(), key), carries=True)
