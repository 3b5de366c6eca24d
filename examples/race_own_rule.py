"""An optimizer and a problem of your own in a race: tuned, run with fresh seeds, reported.

python examples/race_own_rule.py [folder]
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import optim
from jaxnn.compare import Entry, problems, race, report


def sign_momentum(learning_rate, decay=0.9):
    """m <- decay m + (1 - decay) g,  u = -learning_rate sign(m): an optimizer is two pure functions."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, mu, params=None, **extra):
        mu = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, mu, grads)
        return jax.tree.map(lambda m: -learning_rate * jnp.sign(m), mu), mu

    return optim.Optimizer(init, update)


def robust_line(n=300):
    """A line fitted to points, of which one in five is an outlier, by the loss log cosh."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, n)
    y = 1.5 * x - 0.5 + 0.1 * generator.standard_normal(n) + 5 * (generator.random(n) < 0.2)
    points = np.stack([x, y], axis=1).astype(np.float32)

    def loss(params, point):
        away = params["slope"] * point[0] + params["height"] - point[1]
        return jnp.logaddexp(away, -away) - jnp.log(2.0)

    def init(key):
        slope, height = jax.random.normal(key, (2,))
        return {"slope": slope, "height": height}

    return problems.from_function(
        "robust-line", init, loss, points[:200], points[200:250], test=points[250:], batch_size=20, epochs=30
    )


def main() -> None:
    found = race(
        [Entry("sign momentum", sign_momentum), "adam", "optax:sgd:momentum=0.9"],
        [robust_line(), "digits-logistic"],
        learning_rates="log:1e-4:1:9",
        seeds=5,
    )
    for r in found.results:
        low, high = r.quartiles
        print(f"{r.problem:16} {r.optimizer:24} rate {r.rate:.2g}: {r.performance:.4f} ({low:.4f} to {high:.4f})")
    print("written:", report.write(found, *(sys.argv[1:] or ["race_own_rule"])))


if __name__ == "__main__":
    main()
