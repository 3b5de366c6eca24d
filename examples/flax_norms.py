"""Per-example gradient norms of an unchanged flax model: python examples/flax_norms.py"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn import data, losses, per_example

digits = jax.device_put(data.load("digits").train)
model = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, lambda x: x.reshape(len(x), -1), nn.Dense(10)])
params = model.init(jax.random.key(0), digits.x[:1])["params"]


def loss(params, x, y):  # of ONE example; flax expects a batch, so x[None]
    return losses.softmax_cross_entropy(model.apply({"params": params}, x[None]), y[None])[0]


tape = jax.jit(per_example.record(loss))(params, digits.x, digits.y)
largest = jnp.argsort(-per_example.norms(tape))[:5]
print("largest gradient norms:", [f"example {i}: {per_example.norms(tape)[i]:.1f}" for i in largest])
print(per_example.plan(tape))
