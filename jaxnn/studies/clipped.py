"""Training on clipped and noisy gradients, as in DP-SGD, WITHOUT a privacy guarantee.

A guarantee needs batches sampled as the accounting assumes (such as Poisson subsampling), privacy accounting, clipping
that holds under rounding and a secure random generator; this study has none of these. See `per_example.dp_sgd`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnn import backprop, metrics, optim, per_example, plots, train
from jaxnn.checks import require_between
from jaxnn.data import Splits
from jaxnn.layers import Layer
from jaxnn.studies.base import LOSS, Epoch, make_measure, network, rounded, splits, states, within
from jaxnn.train.pieces import scan_epoch
from jaxnn.train.step import TrainState, ValueAndGrad
from jaxnn.types import Array, Key, Loss, Params, Scalar, State

PERCENTS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""The ticks of the validation error."""


class Clipped(NamedTuple):
    """The result of `run`: the plain run, then one per noise multiplier.

    Attributes:
        bound: C, the clipping norm.
        noise: (R,), the noise multipliers; NaN for the plain run.
        losses: (R, epochs + 1), mean training loss before training and after each epoch, in evaluation mode.
        errors: (R, epochs + 1), validation error, a fraction.
        clipped: (R, epochs + 1), the fraction of training examples whose gradient norm exceeds C.
    """

    bound: float
    noise: np.ndarray
    losses: np.ndarray
    errors: np.ndarray
    clipped: np.ndarray

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return ["plain" if np.isnan(s) else f"clipped, noise {s:g}" for s in self.noise]

    def numbers(self) -> dict[str, Any]:
        """For JSON: the curves of each run."""
        return {
            "note": "clipping and noise only; no privacy guarantee",
            "bound": self.bound,
            "runs": {
                name: {
                    "training_loss": rounded(self.losses[i]),
                    "validation_error": rounded(self.errors[i]),
                    "share_longer_than_bound": rounded(self.clipped[i]),
                }
                for i, name in enumerate(self.names)
            },
        }

    def describe(self) -> str:
        """The result in words."""
        lines = [f"gradients clipped to norm {self.bound:g}, summed, Gaussian noise added; no privacy guarantee"]
        for i, name in enumerate(self.names):
            lines.append(
                f"{name:>18}: validation error {self.errors[i, -1]:.1%}, training loss {self.losses[i, -1]:.3g}; "
                f"gradient norm above {self.bound:g} for {self.clipped[i, 0]:.0%} of the examples before training, "
                f"{self.clipped[i, -1]:.0%} after"
            )
        return "\n".join(lines)


def clipped_value_and_grad(net: Layer, loss: Loss, bound: Scalar, noise: Scalar = 0.0) -> ValueAndGrad:
    """The mean loss, and (sum_i min(1, C / |g_i|) g_i + noise C xi) / N, xi standard normal: for `train.make_step`.

    One forward and one backward pass; the norms and the clipped sum come from their tape. No privacy guarantee (see the
    module's docstring).

    Args:
        net: a network whose layers do not couple the examples (no batch normalization).
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,).
        bound: C >= 0, the clipping norm; finite, may be traced.
        noise: standard deviation of the noise in each coordinate of the sum, as a multiple of C; may be traced.

    Returns:
        `vg(params, state, x, y, *, key, weights=None) -> ((value, state), grads)`: x (N, ...), y (N, ...); value the
        mean loss in training mode, neither clipped nor noisy; the key is for random layers and the noise.

    Raises:
        ValueError: bound or noise is negative or infinite; in `vg`: example weights, or layers that couple examples.
        TypeError: `vg` is called without a key.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> from jaxnn import models, tree
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> vg = clipped_value_and_grad(net, LOSS, 0.1)
        >>> _, grads = vg(params, state, jnp.ones((5, 4)), jnp.zeros(5, jnp.int32), key=jax.random.key(1))
        >>> print(f"{tree.norm(grads):.4f}")
        0.1000
    """
    require_between("clipped_value_and_grad", "bound", bound, 0, float("inf"), open_high=True)
    require_between("clipped_value_and_grad", "noise", noise, 0, float("inf"), open_high=True)
    record = backprop.record(net, loss)

    def vg(
        params: Params, state: State, x: Array, y: Array, *, key: Key, weights: Array | None = None
    ) -> tuple[tuple[Array, State], Params]:
        if weights is not None:
            raise ValueError("clipped_value_and_grad: example weights are not supported; use data.Partial.DROP.")
        net_key, noise_key = jax.random.split(key)
        tape = record(params, state, x, y, key=net_key, train=True)
        total, _ = per_example.clipped_grad(tape, bound)
        xi = _normal_like(noise_key, params)
        grads = jax.tree.map(lambda g, z: ((g + noise * bound * z) / tape.examples).astype(g.dtype), total, xi)
        return (jnp.mean(tape.losses), state), grads

    return vg


def _normal_like(key: Key, params: Params) -> Params:
    """A pytree like `params` of independent standard normal numbers, in their shapes and dtypes."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=False)]
    )


def run(
    data: str | Splits = "digits",
    *,
    bound: float = 1.0,
    noise: Sequence[float] = (0.0, 0.5, 1.0, 2.0),
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 64,
    folder: str | Path | None = None,
) -> Clipped:
    """One plain run, and one on clipped gradients per noise multiplier, from the same initial state.

    Args:
        data: a name for `data.load`, or splits; the test set is unused.
        bound: C, the clipping norm.
        noise: multipliers: the noise on the sum has standard deviation noise C in each coordinate.
        net: as for `clipped_value_and_grad`; None for an MLP with 128 hidden units.
        opt: None for `optim.sgd(0.1, momentum=0.9)`.
        seed: of initial parameters, order and noise.
        epochs, batch_size: of training.
        folder: as for `norms.run`.

    Returns:
        Clipped: the cost of clipping and noise, without a statement about privacy.

    Raises:
        ValueError: a negative or infinite bound or multiplier, a batch size above the number of examples, or training
            diverged.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> from jaxnn import data, models
        >>> few = data.Splits(*(data.select(part, slice(0, 64)) for part in data.load("digits")))
        >>> run(few, noise=(1.0,), net=models.linear(10), epochs=1).errors.shape
        (2, 2)
    """
    require_between("clipped", "bound", bound, 0, float("inf"), open_high=True)
    for multiplier in noise:
        require_between("clipped", "each of noise", multiplier, 0, float("inf"), open_high=True)
    parts = splits("clipped", data)
    net = network(net, parts.train)
    opt = opt or optim.sgd(0.1, momentum=0.9)

    @jax.jit  # the multiplier is traced, so that all runs share one program
    def noisy(multiplier: Array, ts: TrainState, x: Array, y: Array, key: Key) -> tuple[TrainState, dict[str, Array]]:
        vg = clipped_value_and_grad(net, LOSS, bound, multiplier)
        return scan_epoch(vg, opt, batch_size=batch_size)(ts, x, y, key)

    measure = make_measure(net)
    evaluate = train.make_evaluate(net, {"error": metrics.error_rate})
    found: list[list[tuple[float, float, float]]] = []
    how: dict[str, Any] = {"seed": seed, "epochs": epochs, "batch_size": batch_size}
    runs: list[tuple[str, Epoch | None]] = [("plain", None)]
    runs += [(f"bound-{float(bound)}-noise-{float(s)}", functools.partial(noisy, jnp.float32(s))) for s in noise]
    for name, epoch in runs:
        how["folder"] = within(folder, name)
        found.append([])
        for ts in states(net, parts.train, opt, epoch=epoch, **how):
            each = measure(ts, parts.train)
            error = evaluate(ts.params, ts.state, parts.validation.x, parts.validation.y)["error"]
            found[-1].append((float(each.losses.mean()), float(error), float((each.norms > bound).mean())))
    losses, errors, clipped = np.moveaxis(np.asarray(found), -1, 0)
    return Clipped(float(bound), np.array([np.nan, *noise]), losses, errors, clipped)


def draw(found: Clipped) -> dict[str, Figure]:
    """Training loss, validation error and the fraction of clipped gradients of each run, by epoch.

    Example:
        >>> ones = np.ones((2, 3))
        >>> sorted(draw(Clipped(1.0, np.array([np.nan, 0.5]), ones, ones, ones)))
        ['clipped']
    """
    fig, axes = plots.figure(1, 3, width=4.4, height=4.0)
    panels = [
        (found.losses, "training loss (mean per example)"),
        (100 * found.errors, "validation error (%)"),
        (100 * found.clipped, f"training gradients with norm > {found.bound:g} (%)"),
    ]
    for ax, (values, label) in zip(axes, panels, strict=True):
        for i, name in enumerate(found.names):
            style = {"color": "black", "linestyle": "--"} if i == 0 else {"color": plots.COLOURS[(i - 1) % 7]}
            ax.plot(values[i], linewidth=2, label=name, **style)
        ax.set_xlabel("epoch", fontsize=11)
        ax.set_ylabel(label, fontsize=11)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_yscale("log")
    axes[1].set_yticks(PERCENTS, [str(p) for p in PERCENTS])
    axes[1].minorticks_off()
    axes[1].set_ylim(max(80 * found.errors.min(), 0.1), 110)
    axes[2].set_ylim(0, 104)
    axes[2].legend(fontsize=9, loc="upper right")
    fig.suptitle(
        f"Training on gradients clipped to norm {found.bound:g}, with Gaussian noise "
        "(clipping and noise only: no privacy guarantee)",
        fontsize=12,
    )
    return {"clipped": fig}
