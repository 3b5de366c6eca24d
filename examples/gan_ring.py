"""Modes that a small GAN finds on a ring of 8 Gaussians, over 5 seeds, by four update rules of the two players.

python examples/gan_ring.py
"""

import functools

import jax

from jaxnn.classic import gan

SEEDS, STEPS = 5, 2000


def main() -> None:
    network, keys = gan.make(2), jax.random.split(jax.random.key(0), SEEDS)
    players = jax.vmap(lambda key: gan.start(network, key, 2))(keys)
    print(f"modes found of 8 by {SEEDS} seeds after {STEPS} steps, and the share of samples at any mode")
    for name, rule in gan.RULES.items():
        train = functools.partial(gan.run, network, rule, gan.ring, steps=STEPS, looks=1)
        _, samples = jax.jit(jax.vmap(train))(players, keys)  # (5, 2, 512, 2): at the start and at the end
        found = gan.coverage(samples[:, -1], gan.ring_centres())
        modes = ", ".join(map(str, found.found))
        print(f"{name:16} {modes}   mean {found.found.mean():.1f}   share {found.quality.mean():.0%}", flush=True)


if __name__ == "__main__":
    main()
