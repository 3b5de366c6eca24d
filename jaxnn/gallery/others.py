"""Networks that are not layered nets under gradient descent: memories, distributions, maps, reservoirs, spikes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxnn import data, plots
from jaxnn.classic import boltzmann, hopfield, kohonen, reservoir, spiking
from jaxnn.data import series
from jaxnn.gallery.base import Picture
from jaxnn.gallery.kernels import PICTURES as KERNELS
from jaxnn.plots import COLOURS
from jaxnn.types import Array, Key

Numbers = np.ndarray[Any, Any]


SEEN, LONGEST = (500, 1000, 2000), 40
"""The epochs after which the direction of CD-k is compared with the gradient, and the largest k."""


def _draw_hopfield() -> Figure:
    fig, (images, energies, capacity) = plots.figure(1, 3, width=4.6, height=3.9)
    patterns = np.stack([_typical(digit) for digit in range(5)])
    w, rows = hopfield.projection(patterns), []
    for i, (stored, colour) in enumerate(zip(patterns, COLOURS, strict=False)):
        flipped = np.random.default_rng(i).permutation(64) < 10
        order = jnp.concatenate([jax.random.permutation(key, 64) for key in jax.random.split(jax.random.key(i))])
        states, energy = _updates(w, jnp.asarray(np.where(flipped, -stored, stored), w.dtype), order)
        rows.append([np.where(stored > 0, 1, 0), *(np.asarray(states)[[0, 32, 64, 128]] > 0)])
        energies.plot(energy, color=colour, linewidth=2, label=f"from a noisy {i}")
    _mosaic(images, np.array(rows, float).reshape(5, 5, 8, 8))
    images.set_xticks(4 + 9 * np.arange(5), ["stored", "0", "32", "64", "128"])
    images.set_xlabel("updates of single units")
    images.set_title("recall from 10 of 64 pixels flipped", fontsize=12)
    energies.set(xlabel="updates of single units", ylabel="energy")
    energies.set_title("no update raises the energy", fontsize=12)
    energies.legend(fontsize=9)
    loads = np.arange(0.05, 0.2, 0.02)
    for n, marker, colour in ((100, "o", COLOURS[5]), (500, "s", COLOURS[0])):
        overlaps = [_mean_overlap(n, load) for load in loads]
        capacity.plot(loads, overlaps, marker, color=colour, label=f"N = {n}")
    critical = float(hopfield.critical_load())
    fine = np.append(np.linspace(0.03, critical, 100), [critical, 0.21])
    theory = [float(m) for m in jax.vmap(hopfield.retrieval_overlap)(jnp.asarray(fine[:-2] * (1 - 1e-6)))]
    capacity.plot(fine, [*theory, 0, 0], color="black", linewidth=1.5, label="mean field, N to infinity")
    capacity.set(xlabel="patterns per unit, P / N", ylabel="overlap of pattern and recalled state", ylim=(-0.03, 1.05))
    capacity.set_xticks([0.05, 0.1, 0.15, 0.2])
    capacity.set_title(f"Hebb's rule: up to {critical:.3f} N random patterns", fontsize=12)
    capacity.legend(fontsize=10, loc="lower left")
    return fig


def _typical(digit: int) -> Numbers:
    """The image of this digit, as 64 signs, that has the fewest pixels different from the others of its class."""
    digits = data.digits()
    signs = np.where(np.asarray(digits.x)[np.asarray(digits.y) == digit].reshape(-1, 64) > 0.5, 1.0, -1.0)
    return signs[(signs @ signs.sum(axis=0)).argmax()]


@jax.jit
def _updates(w: Array, state: Array, order: Array) -> tuple[Array, Array]:
    """All states of updates in this order, and their energies."""
    _, states = jax.lax.scan(lambda s, i: (hopfield.update(w, s, i),) * 2, state, order)
    states = jnp.concatenate([state[None], states])
    return states, hopfield.energy(w, states)


def _mean_overlap(n: int, load: float, starts: int = 20) -> float:
    """The mean overlap of random patterns with the states recalled from them, over networks of 500 units in all."""
    found = []
    for seed in range(max(1, 500 // n)):
        xi = np.random.default_rng([n, seed, round(1000 * load)]).choice([-1.0, 1.0], (round(load * n), n))
        first = xi[np.arange(starts) % len(xi)]
        states = _recall(hopfield.hebb(xi), first, jax.random.split(jax.random.key(seed), starts))
        found.append(np.mean(np.asarray(states) * first))
    return float(np.mean(found))


@jax.jit
def _recall(w: Array, states: Array, keys: Key) -> Array:
    return jax.vmap(lambda s, key: hopfield.recall(w, s, key=key).state)(states, keys)


def bars_and_stripes() -> Numbers:
    """The 30 images of 4 x 4 pixels whose rows, or whose columns, are each of one value: (30, 16), 0 or 1."""
    lines = (np.arange(16)[:, None] >> np.arange(4)) & 1
    bars = np.repeat(lines[:, None, :], 4, axis=1)
    both = np.concatenate([bars, bars.transpose(0, 2, 1)]).reshape(32, 16)
    return np.unique(both, axis=0).astype(np.float32)


def _draw_boltzmann() -> Figure:
    fig, (curves, samples, angles) = plots.figure(1, 3, width=4.6, height=3.9)
    x, runs = jnp.asarray(bars_and_stripes()), {}
    settings: dict[str, Any] = {"hidden": 12, "epochs": 2000, "batch_size": 120, "learning_rate": 0.15}
    for steps, colour in ((1, COLOURS[0]), (10, COLOURS[2])):
        runs[steps] = boltzmann.fit(np.tile(x, (4, 1)), key=jax.random.key(0), steps=steps, **settings)
        values = _likelihoods(jax.tree.map(lambda p: p[39::40], runs[steps]), x)
        curves.plot(np.arange(40, 2001, 40), values, color=colour, linewidth=2, label=f"CD-{steps}")
    curves.axhline(-np.log(30), color="black", linewidth=1, linestyle=":", label="the best, -log 30")
    curves.set(xlabel="epoch", ylabel="log-likelihood, exact (nats)")
    curves.set_title("training on 30 bars and stripes", fontsize=12)
    curves.legend(fontsize=10, loc="lower right")
    machines = jax.tree.map(lambda p: p[np.array(SEEN) - 1], runs[10])
    last = jax.tree.map(lambda p: p[-1], machines)
    drawn = np.asarray(boltzmann.gibbs(last, jnp.zeros((64, 16)), key=jax.random.key(1), steps=1000))
    known = (drawn[:, None] == x).all(axis=-1).any(axis=1)
    _mosaic(samples, (np.where(known, 1, 0.5)[:, None] * drawn).reshape(8, 8, 4, 4))
    samples.set_title(f"samples after CD-10: {known.sum()} of 64 are right", fontsize=12)
    for row, epoch, colour in zip(_cosines(machines, x), SEEN, COLOURS[3:6], strict=True):
        angles.plot(np.arange(1, LONGEST + 1), row, ".-", color=colour, linewidth=2, label=f"after epoch {epoch:,}")
    angles.axhline(0, color="black", linewidth=1)
    angles.set(xscale="log", xlabel="k", ylabel="cosine with the exact gradient", ylim=(-0.6, 1.05))
    angles.set_title("the direction of CD-k", fontsize=12)
    angles.legend(fontsize=10, loc="lower right")
    return fig


@jax.jit
def _likelihoods(machines: boltzmann.Machine, x: Array) -> Array:
    return jax.lax.map(lambda machine: boltzmann.log_likelihood(machine, x), machines)


@jax.jit
def _cosines(machines: boltzmann.Machine, x: Array) -> Array:
    """The cosine of the exact gradient with CD-k of 6,000 chains, for each machine and k = 1 .. LONGEST."""
    many = jnp.tile(x, (200, 1))

    def of(machine: boltzmann.Machine) -> Array:
        exact = jnp.concatenate([jnp.ravel(p) for p in jax.grad(boltzmann.log_likelihood)(machine, x)])

        def longer(chains: Array, key: Key) -> tuple[Array, Array]:
            cd, chains = boltzmann.contrastive_divergence(machine, many, key=key, chains=chains)
            flat = jnp.concatenate([jnp.ravel(p) for p in cd])
            return chains, flat @ exact / jnp.linalg.norm(flat) / jnp.linalg.norm(exact)

        return jax.lax.scan(longer, many, jax.random.split(jax.random.key(0), LONGEST))[1]

    return jax.lax.map(of, machines)


def _draw_kohonen() -> Figure:
    fig, axes = plots.figure(1, 4, width=3.6, height=4.2)
    x = jax.random.uniform(jax.random.key(0), (2000, 2))
    w, steps = jax.random.choice(jax.random.key(1), x, (10, 10)), 12_000
    rates, radii = jnp.geomspace(0.5, 0.05, steps), jnp.geomspace(5, 0.5, steps)
    at = (0, 300, steps)
    for ax, begin, end in zip(axes, (0, *at[:-1]), at, strict=False):
        if end:
            w = kohonen.fit(w, x, key=jax.random.key(end), rates=rates[begin:end], radii=radii[begin:end])
        ax.plot(w[..., 0], w[..., 1], color=COLOURS[0], linewidth=1)
        ax.plot(w[..., 0].T, w[..., 1].T, color=COLOURS[0], linewidth=1)
        ax.plot(w[..., 0].ravel(), w[..., 1].ravel(), ".", color="black", markersize=4)
        error = 100 * float(kohonen.topographic_error(w, x))
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        ax.set_title(f"{end:,} examples:\n{error:.0f}% not in order", fontsize=12)
    digits = data.load("digits").train
    images = jnp.asarray(digits.x.reshape(-1, 64))
    start = jax.random.choice(jax.random.key(2), images, (10, 10))
    found = kohonen.fit(start, images, key=jax.random.key(3), rates=rates, radii=radii)
    _mosaic(axes[3], np.asarray(found).reshape(10, 10, 8, 8))
    error = 100 * float(kohonen.topographic_error(found, images))
    axes[3].set_title(f"a map of digits:\n{error:.0f}% not in order", fontsize=12)
    return fig


def _draw_reservoir() -> Figure:
    with jax.enable_x64(True):  # long memory is made of small numbers
        return _reservoir()


def _reservoir() -> Figure:
    fig, (forgetting, remembering, alone) = plots.figure(1, 3, width=4.6, height=3.9)
    made = reservoir.make(jax.random.key(0), 1, 100, radius=1.0)
    starts = jax.random.uniform(jax.random.key(1), (2, 100), minval=-1.0)
    for radius, colour in zip((0.5, 0.8, 1.3), COLOURS, strict=False):
        net = made._replace(w=radius * made.w)
        first, second = (reservoir.states(net, np.zeros((200, 1)), start=start) for start in starts)
        distance = np.linalg.norm(np.asarray(first - second), axis=1)
        forgetting.plot(np.arange(1, 201), distance, color=colour, linewidth=2, label=f"spectral radius {radius:g}")
    forgetting.set(yscale="log", xlabel="step", ylabel="distance of the states from two starts", ylim=(1e-7, 1e2))
    forgetting.set_title("forgetting the start, without input", fontsize=12)
    forgetting.legend(fontsize=10)
    u = np.random.default_rng(0).uniform(-1, 1, 6200)
    for radius, colour in zip((0.5, 0.8, 0.95), (*COLOURS[:2], COLOURS[3]), strict=True):
        x = reservoir.states(made._replace(w=radius * made.w, w_in=0.5 * made.w_in), u[:, None])
        r2 = np.asarray(reservoir.memory(x[200:], u[200:], delays=40))
        remembering.plot(r2, color=colour, linewidth=2, label=f"spectral radius {radius:g}: {r2.sum():.0f} in all")
    line = reservoir.Reservoir(jnp.eye(30, k=1), jnp.eye(1, 30), jnp.zeros(30), jnp.ones(()))
    x = reservoir.states(line, u[:, None], activation=_identity)
    r2 = np.asarray(reservoir.memory(x[200:], u[200:], delays=40))
    remembering.plot(r2, ":", color="black", linewidth=2, label=f"delay line of 30 units: {r2.sum():.0f} in all")
    remembering.set(xlabel="delay k", ylabel="$r^2$ of $u(t - k)$ and its reconstruction", ylim=(0, 1.5))
    remembering.set_title("memory of 100 tanh units", fontsize=12)
    remembering.legend(fontsize=10)
    truth, guess = _continued()
    alone.plot(truth, color="0.6", linewidth=4, label="Mackey-Glass")
    alone.plot(guess, color=COLOURS[1], linewidth=1.5, label="network on its own")
    alone.set(xlabel="time after the last true input", ylabel="x(t)", ylim=(0.2, 1.75))
    alone.set_title("a chaotic series continued", fontsize=12)
    alone.legend(fontsize=10, loc="upper right")
    return fig


def _identity(z: Array) -> Array:
    return z


def _continued(steps: int = 800) -> tuple[Numbers, Numbers]:
    """The Mackey-Glass series after 3,000 values, and as a network of 300 units continues it from them."""
    u = series.mackey_glass(3000 + steps)
    net = reservoir.make(jax.random.key(2), 1, 300, radius=0.9, density=0.05, bias=0.2)
    x = reservoir.states(net, u[:3000, None] - 1)
    w_out = reservoir.readout(x[200:-1], u[201:3000, None] - 1, penalty=1e-8)
    guess = reservoir.generate(net, w_out, x[-1], steps=steps)
    return np.asarray(u[3000:]), 1 + np.asarray(guess)[:, 0]


def _draw_spiking() -> Figure:
    fig, (trace, rates) = plots.figure(1, 2, width=6.2, height=3.9)
    unit, step = spiking.Unit(), 0.1
    current = np.repeat([0.0, 1.4, 2.0, 4.0], [200, 800, 1000, 1000])
    found = spiking.simulate(unit, current, step=step)
    time, fired = step * np.arange(1, 3001), np.asarray(found.times)
    trace.plot(time, found.v, color=COLOURS[0], linewidth=1.5, label="potential v")
    fired = fired[~np.isnan(fired)]
    trace.vlines(fired, unit.threshold, -30, color=COLOURS[0], linewidth=1.5)
    trace.axhline(unit.threshold, color="black", linewidth=1, linestyle=":", label="threshold")
    for begin, end, amount in ((20, 100, 1.4), (100, 200, 2.0), (200, 300, 4.0)):
        count = int(((fired > begin) & (fired <= end)).sum())
        trace.text((begin + end) / 2, -26, f"{amount:g} nA\n{count} spikes", ha="center", fontsize=10)
    trace.set(xlabel="time (ms)", ylabel="potential (mV)", ylim=(-67, -10))
    trace.set_title("a potential that charges, fires and is reset", fontsize=12)
    trace.legend(fontsize=10, loc="upper left", ncols=2)
    fine, coarse = np.linspace(0, 6, 601), np.linspace(0.3, 6, 20)
    for pause, marker, colour in zip((0.0, 2.0, 5.0), "os^", COLOURS, strict=False):
        unit = spiking.Unit(refractory=pause)
        rates.plot(fine, 1000 * spiking.rate(unit, fine), color=colour, linewidth=1.5)
        counted = 1000 * _counted(jnp.asarray(pause), jnp.asarray(coarse, jnp.float32))
        rates.plot(coarse, counted, marker, color=colour, markersize=6, label=f"refractory period {pause:g} ms")
    rates.set(xlabel="current (nA)", ylabel="spikes per second")
    rates.set_title("rate against current: simulated, and in closed form (lines)", fontsize=12)
    rates.legend(fontsize=10)
    return fig


@jax.jit
def _counted(pause: Array, currents: Array) -> Array:
    """The spikes per ms of 2 s under each constant current, by simulation."""

    def one(current: Array) -> Array:
        times = spiking.simulate(spiking.Unit(refractory=pause), jnp.full(4000, current), step=0.5).times
        count = jnp.sum(~jnp.isnan(times))
        # From the first to the last spike: whole intervals only.
        return jnp.where(count > 1, (count - 1) / (jnp.nanmax(times) - jnp.nanmin(times)), 0)

    return jax.vmap(one)(currents)


def _mosaic(ax: Any, images: Numbers) -> None:
    """Images (R, C, H, W) of values in [0, 1], side by side as ink on paper, with grey lines between them."""
    rows, columns, height, width = images.shape
    whole = np.full((rows, height + 1, columns, width + 1), np.nan)
    whole[:, :-1, :, :-1] = images.transpose(0, 2, 1, 3)
    whole = whole.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    ax.set_facecolor("#9ECAE1")
    ax.imshow(np.ma.masked_invalid(whole), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])


PICTURES = (
    Picture(
        "hopfield",
        "The Hopfield network",
        "Five digits are stored in 64 units, one for each pixel (by the projection rule: they are too much alike for "
        "Hebb's). From a digit with ten pixels flipped, unit after unit takes the sign of its weighted inputs; the "
        "energy never rises, and after 128 updates each digit is recalled (left, middle). Random patterns stored by "
        "Hebb's rule are recalled almost perfectly up to 0.138 patterns per unit; beyond, recall breaks down, the more "
        "so the larger the network (right).",
        r"E(s) = -\frac{1}{2} \sum_{ij} w_{ij} s_i s_j, \qquad s_i \leftarrow \mathrm{sign} \sum_j w_{ij} s_j",
        "Hopfield, J. J. (1982). Neural networks and physical systems with emergent collective computational "
        "abilities. Amit, D. J., Gutfreund, H. & Sompolinsky, H. (1985). Storing infinite numbers of patterns in a "
        "spin-glass model of neural networks.",
        _draw_hopfield,
    ),
    Picture(
        "boltzmann-machine",
        "The restricted Boltzmann machine",
        "A machine of 16 visible and 12 hidden units learns the 30 images of four by four pixels that consist of bars "
        "or stripes. Contrastive divergence of ten steps comes nearer to the best likelihood than that of one step "
        "(left; exact, by enumeration); samples that are neither bars nor stripes are grey (middle). After 500 epochs "
        "CD-k points along the exact gradient for every k; after 2,000, CD-1 points against it, long chains along it.",
        r"P(v, h) \propto e^{v^T W h + a^T v + b^T h}, \qquad "
        r"\Delta W \propto \langle v h^T \rangle_{data} - \langle v h^T \rangle_{k\ steps}",
        "Hinton, G. E. (2002). Training products of experts by minimizing contrastive divergence. Tieleman, T. (2008). "
        "Training restricted Boltzmann machines using approximations to the likelihood gradient.",
        _draw_boltzmann,
    ),
    *KERNELS,
    Picture(
        "kohonen-map",
        "Kohonen's self-organizing map",
        "A hundred units on a grid start at random points of a square. Each example pulls the unit nearest to it "
        "towards itself, and less strongly that unit's neighbours on the grid; while the neighbourhood shrinks, the "
        "grid unfolds over the square. The same rule arranges digits so that similar ones are neighbours (right). Not "
        "in order: examples whose two nearest units are not adjacent on the grid.",
        r"w_j \leftarrow w_j + \eta\, e^{-|r_j - r_c|^2 / 2 \sigma^2} (x - w_j), \qquad c = \arg\min_j |x - w_j|",
        "Kohonen, T. (1982). Self-organized formation of topologically correct feature maps. Kiviluoto, K. (1996). "
        "Topology preservation in self-organizing maps.",
        _draw_kohonen,
    ),
    Picture(
        "echo-state",
        "The echo-state network",
        "Recurrent networks whose random weights are never trained. Without input, this one forgets its start with a "
        "spectral radius of 0.5 or 0.8, with 1.3 it does not (left). Its states hold the recent inputs, in all at most "
        "one for each unit, which a delay line attains (middle). A readout trained to predict the next value of a "
        "chaotic series, by least squares, continues the series when it is fed its own outputs (right).",
        r"x(t) = \tanh(W x(t-1) + W_{in}\, u(t) + b), \qquad y(t) = W_{out}\, x(t)",
        'Jaeger, H. (2001). The "echo state" approach to analysing and training recurrent neural networks. Jaeger, H. '
        "& Haas, H. (2004). Harnessing nonlinearity: predicting chaotic systems and saving energy in wireless "
        "communication.",
        _draw_reservoir,
    ),
    Picture(
        "spiking-unit",
        "The leaky integrate-and-fire unit",
        "A current charges the membrane, which leaks; when the potential reaches the threshold the unit fires, and is "
        "reset for a refractory period of 2 ms (left). Up to 1.5 nA it never fires. The simulated rates equal the "
        "closed form, and stay below one spike in a refractory period (right).",
        r"\tau\, \dot{v} = v_{rest} - v + R I, \qquad "
        r"\mathrm{rate} = 1 / (t_{ref} + \tau \log \frac{v_{rest} + R I - v_{reset}}{v_{rest} + R I - \theta})",
        "Lapicque, L. (1907). Recherches quantitatives sur l'excitation electrique des nerfs traitee comme une "
        "polarisation. Stein, R. B. (1965). A theoretical analysis of neuronal variability.",
        _draw_spiking,
    ),
)
