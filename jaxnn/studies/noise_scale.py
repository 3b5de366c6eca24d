"""The noise of minibatch gradients: against the batch size, and during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnn import backprop, optim, per_example, plots, tree
from jaxnn.checks import count_of, require_positive_int
from jaxnn.data import Dataset, Splits
from jaxnn.layers import Layer
from jaxnn.per_example import NoiseScale
from jaxnn.studies.base import LOSS, MICROBATCH, network, rounded, states, training_set
from jaxnn.train import TrainState
from jaxnn.types import Array, Key, Params

SIZES = (4, 16, 64, 256)
"""The default batch sizes."""

DRAWN = 2**14
"""Examples drawn per batch size, in full batches of that size."""


class NoiseScales(NamedTuple):
    """The result of `run`: G and Sigma are mean and covariance (1/N) of the gradients of the N training examples.

    Attributes:
        trace, sq_norm: (epochs + 1,), tr(Sigma) and |G|^2 before training and after each epoch.
        moments: (M,), the epochs after which batches were drawn; 0 is before training.
        sizes: (S,), the batch sizes.
        batch_trace: (M, S), tr(Sigma) estimated from batches of one size.
        batch_sq_norm: (M, S), |G|^2 estimated from them; may be negative with too few batches.
    """

    trace: np.ndarray
    sq_norm: np.ndarray
    moments: np.ndarray
    sizes: np.ndarray
    batch_trace: np.ndarray
    batch_sq_norm: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """(epochs + 1,), the noise scale tr(Sigma) / |G|^2, in examples."""
        return self.trace / self.sq_norm

    @property
    def batch_scale(self) -> np.ndarray:
        """(M, S), the noise scale estimated from batches of one size; NaN where the estimate of |G|^2 is not > 0."""
        return self.batch_trace / np.where(self.batch_sq_norm > 0, self.batch_sq_norm, np.nan)

    @property
    def squares(self) -> np.ndarray:
        """(M, S), the measured mean of |gradient of a batch|^2, with expectation |G|^2 + tr(Sigma) / size."""
        return self.batch_sq_norm + self.batch_trace / self.sizes

    def numbers(self) -> dict[str, Any]:
        """For JSON: the noise scale by epoch, and its estimates by batch size."""
        return {
            "noise_scale": rounded(self.scale),
            "trace": rounded(self.trace),
            "squared_norm": rounded(self.sq_norm),
            "moments": self.moments.tolist(),
            "sizes": self.sizes.tolist(),
            "estimated_trace": rounded(self.batch_trace),
            "estimated_squared_norm": rounded(self.batch_sq_norm),
            "mean_squared_norm_of_a_batch": rounded(self.squares),
        }

    def describe(self) -> str:
        """The result in words."""
        lines = [
            f"noise scale (examples) of the whole training set: {_told(self.scale[0])} before training, "
            f"{_told(self.scale[-1])} after {count_of(len(self.scale) - 1, 'epoch')}"
        ]
        for epoch, estimates in zip(self.moments, self.batch_scale, strict=True):
            told = ", ".join(f"{_told(b)} (batches of {n})" for n, b in zip(self.sizes, estimates, strict=True))
            when = f"after {count_of(epoch, 'epoch')}" if epoch else "before training"
            lines.append(f"{when}: {_told(self.scale[epoch])}; as estimated: {told}")
        return "\n".join(lines)


def _told(scale: float) -> str:
    if np.isnan(scale):
        return "undetermined"
    return f"{scale:,.0f}" if scale >= 100 else f"{scale:.3g}"


def run(
    data: str | Splits | Dataset = "digits",
    *,
    net: Layer | None = None,
    opt: optim.Optimizer | None = None,
    seed: int = 0,
    epochs: int = 10,
    batch_size: int = 64,
    sizes: Sequence[int] = SIZES,
    drawn: int = DRAWN,
    folder: str | Path | None = None,
) -> NoiseScales:
    """tr(Sigma) / |G|^2 during training, over the whole training set and estimated from batches of several sizes.

    The gradient of a batch of n examples, drawn with replacement, has mean square |G|^2 + tr(Sigma) / n: at n = the
    noise scale, noise and gradient are equally large. Much smaller batches waste steps, much larger ones examples.

    Args:
        data, net, opt, epochs, batch_size: as for `norms.run`.
        seed: of initial parameters, order, and the batches drawn.
        sizes: of the batches drawn, each >= 2.
        drawn: examples drawn per size, rounded down to full batches; at least the largest size. Batches are drawn
            before training, after round(sqrt(epochs)) epochs and at the end.
        folder: as for `norms.run`.

    Raises:
        ValueError: a size is below 2 or above `drawn`.

    Reference: McCandlish, S., Kaplan, J., Amodei, D. & the OpenAI Dota team (2018). An empirical model of large-batch
        training, section 2.2 and appendix A.1.

    Example:
        >>> from jaxnn import data, models
        >>> few = data.select(data.load("digits").train, slice(0, 64))
        >>> run(few, net=models.linear(10), epochs=0, sizes=(8,), drawn=64).scale.shape
        (1,)
    """
    examples = training_set("noise_scale", data)
    for size in sizes:
        require_positive_int("noise_scale", "each of sizes", size, 2)
        if size > drawn:
            raise ValueError(f"noise_scale: drawn must be at least the largest size, got {drawn} and {size}.")
    net = network(net, examples)
    x, y = jnp.asarray(examples.x), jnp.asarray(examples.y)
    whole, sampled = _make_whole(net), [_make_sampled(net, size, drawn // size) for size in sizes]
    moments = sorted({0, round(epochs**0.5), epochs})
    exact, estimates = [], []
    run_ = states(
        net, examples, opt or optim.adam(3e-3), seed=seed, epochs=epochs, batch_size=batch_size, folder=folder
    )
    for epoch, ts in enumerate(run_):
        exact.append(whole(ts, x, y))
        if epoch in moments:
            key = jax.random.fold_in(jax.random.key(seed), 10**6 + epoch)
            estimates.append([f(ts, x, y, jax.random.fold_in(key, i)).means for i, f in enumerate(sampled)])
    trace, sq_norm = np.asarray(exact).T
    both: np.ndarray = np.asarray(estimates).reshape(len(moments), len(sizes), 2)
    return NoiseScales(trace, sq_norm, np.asarray(moments), np.asarray(sizes), both[..., 0], both[..., 1])


def _make_whole(net: Layer) -> Callable[..., tuple[Array, Array]]:
    """A function that returns (tr(Sigma), |G|^2) of the training set, from sums of |g_i|^2 and g_i in one pass."""
    record = backprop.record(net, LOSS)

    @jax.jit
    def whole(ts: TrainState, x: Array, y: Array) -> tuple[Array, Array]:
        def part(x: Array, y: Array) -> tuple[tuple[Array, Params], tuple[()]]:
            tape = record(ts.params, ts.state, x, y)
            return (per_example.sq_norms(tape).sum(), per_example.weighted_grad(tape, jnp.ones(len(x)))), ()

        (squares, total), _ = per_example.over_microbatches(part, (x, y), MICROBATCH)
        mean = tree.scale(1 / len(x), total)
        mean_square, sq_norm = squares / len(x), tree.vdot(mean, mean)
        return mean_square - sq_norm, sq_norm

    return whole


def _make_sampled(net: Layer, size: int, batches: int) -> Callable[[TrainState, Array, Array, Key], NoiseScale]:
    """A function that sums the unbiased estimates from `batches` batches of one size, drawn with replacement."""
    record = backprop.record(net, LOSS)

    @jax.jit
    def sampled(ts: TrainState, x: Array, y: Array, key: Key) -> NoiseScale:
        def step(before: NoiseScale, rows: Array) -> tuple[NoiseScale, None]:
            return per_example.noise_scale(record(ts.params, ts.state, x[rows], y[rows]), before), None

        return jax.lax.scan(step, NoiseScale.zero(), jax.random.randint(key, (batches, size), 0, len(x)))[0]

    return sampled


def draw(found: NoiseScales) -> dict[str, Figure]:
    """The mean square of a batch's gradient against the batch size; the noise scale during training.

    Example:
        >>> ones = np.ones((1, 2))
        >>> sorted(draw(NoiseScales(ones[0], ones[0], np.array([0]), np.array([2, 4]), ones, ones)))
        ['noise-scale']
    """
    fig, (left, right) = plots.figure(1, 2, width=5.8, height=4.4)
    _against_size(left, found)
    _along_training(right, found)
    for ax, place in ((left, "lower left"), (right, "best")):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=9, loc=place)
    fig.suptitle("Gradient noise against the batch size, and during training", fontsize=12)
    return {"noise-scale": fig}


def _against_size(ax: Any, found: NoiseScales) -> None:
    smooth = np.geomspace(found.sizes.min(), found.sizes.max(), 100)
    for epoch, squares, colour in zip(found.moments, found.squares, plots.COLOURS, strict=False):
        label = f"after {epoch} epoch{'' if epoch == 1 else 's'}" if epoch else "before training"
        trace, sq_norm, scale = found.trace[epoch], found.sq_norm[epoch], found.scale[epoch]
        ax.plot(found.sizes, squares, "o", color=colour, label=f"{label}: noise scale {_told(scale)}")
        ax.plot(smooth, sq_norm + trace / smooth, color=colour)
        ax.axhline(sq_norm, color=colour, linestyle=":", linewidth=1)
        if found.sizes.min() <= scale <= found.sizes.max():
            ax.plot(scale, 2 * sq_norm, "D", color=colour, markerfacecolor="white", markersize=9)
    ax.plot([], [], "o", color="grey", label="measured on batches")
    ax.plot([], [], color="grey", label="|G|² + tr(Σ) / n, whole training set")
    ax.plot([], [], color="grey", linestyle=":", label="|G|²")
    ax.plot([], [], "D", color="grey", markerfacecolor="white", label="n = noise scale")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(found.sizes, [str(n) for n in found.sizes])
    ax.minorticks_off()
    ax.set_ylim(bottom=0.1 * min(found.squares.min(), found.sq_norm[found.moments].min()))  # room for the legend
    ax.set_xlabel("batch size n (examples)", fontsize=11)
    ax.set_ylabel("mean squared norm of a batch's gradient", fontsize=11)


def _along_training(ax: Any, found: NoiseScales) -> None:
    ax.plot(found.scale, color="black", linewidth=2, label="whole training set")
    apart = 0.012 * max(len(found.scale) - 1, 1)  # so that equal estimates do not overlap
    for i, size in enumerate(found.sizes):
        where = found.moments + (i - len(found.sizes) / 2) * apart
        style = {"color": plots.COLOURS[(i + 3) % 7], "markeredgecolor": "black", "markeredgewidth": 0.5}
        label = f"estimated from batches of {size}"
        ax.plot(where, found.batch_scale[:, i], "v^sDoP"[i % 6], markersize=7, label=label, **style)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch", fontsize=11)
    ax.set_ylabel("noise scale tr(Σ) / |G|² (examples)", fontsize=11)
