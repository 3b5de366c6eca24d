"""Five hundred networks in one program: validation error by learning rate and momentum, on the embedded digits.

python examples/sweep.py [picture.png]
"""

import sys

import jax
import numpy as np

from jaxnn import data, losses, metrics, models, optim, plots, train

RATES, MOMENTA, SEEDS, EPOCHS = np.geomspace(1e-3, 10, 25), (0.0, 0.5, 0.9, 0.99), 5, 5


def main() -> None:
    digits = data.load("digits")
    rate, momentum = (grid.ravel() for grid in np.meshgrid(RATES, MOMENTA))
    runs = train.sweep(
        lambda s: optim.sgd(s["rate"], momentum=s["momentum"]),
        {"rate": rate, "momentum": momentum},
        models.mlp([64, 32, 10]),
        losses.softmax_cross_entropy,
        digits.train,
        keys=jax.random.split(jax.random.key(0), SEEDS),
        epochs=EPOCHS,
        batch_size=32,
        validation=digits.validation,
        metrics={"error": metrics.error_rate},
    )
    error = runs.curves["validation_error"][:, -1].reshape(len(MOMENTA), len(RATES), SEEDS)
    fig, ax = plots.figure(width=6.5, height=4.3)
    for i, momentum in enumerate(MOMENTA):
        middle = 100 * np.median(np.where(np.isnan(error[i]), np.inf, error[i]), axis=1)
        best = int(np.argmin(middle))
        ax.plot(RATES, middle, color=plots.COLOURS[i], marker="os^D"[i], label=f"momentum {momentum:g}")
        print(f"momentum {momentum:4}: best rate {RATES[best]:.3g}, validation error {middle[best]:.1f}%")
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="validation error (%), median of 5 seeds")
    ax.set_title(f"{len(runs.diverged)} networks, {int((runs.diverged > 0).sum())} diverged", fontsize=12)
    ax.grid(alpha=0.3)
    fig.legend(fontsize=10, loc="outside lower center", ncols=2, frameon=False)
    print("written:", plots.save(fig, *(sys.argv[1:] or ["sweep.png"])))


if __name__ == "__main__":
    main()
