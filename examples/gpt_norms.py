"""Gradient norms and noise scale of a small flax GPT with scanned, rematerialized blocks in bfloat16.

One backward pass, in the memory of `jax.grad`: python examples/gpt_norms.py
"""

import pydoc_data.topics  # the Python language reference as plain text

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn import losses, per_example

LAYERS, WIDTH, HEADS, CONTEXT, BATCH = 4, 64, 4, 64, 32


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        mask = nn.make_causal_mask(jnp.ones(x.shape[:-1]))
        h = nn.LayerNorm(dtype=jnp.bfloat16)(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS, dtype=jnp.bfloat16)(h, mask=mask)
        h = nn.gelu(nn.Dense(4 * WIDTH, dtype=jnp.bfloat16)(nn.LayerNorm(dtype=jnp.bfloat16)(x)))
        return x + nn.Dense(WIDTH, dtype=jnp.bfloat16)(h), None


class GPT(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        places = self.param("places", nn.initializers.normal(0.02), (CONTEXT, WIDTH), jnp.bfloat16)
        x = nn.Embed(128, WIDTH, dtype=jnp.bfloat16, name="letters")(tokens) + places
        blocks = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(128, dtype=jnp.bfloat16, name="out")(nn.LayerNorm(dtype=jnp.bfloat16, name="norm")(x))


def loss(params, text):  # of ONE sequence: the mean cross-entropy of its next letters
    logits = model.apply({"params": params}, text[None, :-1])[0]
    return losses.softmax_cross_entropy(logits.astype(jnp.float32), text[1:]).mean()


class NormsByDepth(per_example.Statistic):  # squared norms in each block of the scanned stack, (N, LAYERS)
    needs = frozenset({"sq_norms"})

    def prepare(self, param, params):
        return per_example.Part("depth", (LAYERS,)) if param.path.startswith("['blocks']") else None

    def of_use(self, gradients, part):
        return gradients.sq_norms[:, None] * jax.nn.one_hot(gradients.number[1], LAYERS)

    def combine(self, found, batch):
        return found["depth"]


letters = "\n\n".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")
start = jax.random.randint(jax.random.key(0), (BATCH, 1), 0, len(letters) - CONTEXT)
texts = jnp.frombuffer(letters, jnp.uint8)[start + jnp.arange(CONTEXT + 1)].astype(jnp.int32)
model = GPT()
params = jax.jit(model.init)(jax.random.key(1), texts[:1, :-1])["params"]

groups = {name: f"['{name}']" for name in params}
vg = per_example.value_and_grad(
    loss, {"norms": per_example.SqNorms(), "parts": per_example.SqNorms(groups), "depth": NormsByDepth()}
)
(each, found), grads = jax.jit(vg)(params, texts)
by_depth = jnp.sqrt(found["depth"].mean(axis=0))
noise = per_example.noise_scale_of(found["norms"], grads)
parts = per_example.noise_scale_of(found["parts"], grads, by=groups)

norms = jnp.sqrt(found["norms"])
print(f"loss {each.mean():.2f} nats per letter; gradient norms {norms.min():.2f} to {norms.max():.2f}")
print("root mean square of the gradient norms by block:", *(f"{norm:.3f}" for norm in by_depth))
print(f"noise scale tr(Sigma) / |G|^2 before training: {noise.scale:.2f} sequences of {CONTEXT} letters")
for name, part in parts.items():
    print(f"  {name:8} {part.scale:6.2f}   tr(Sigma) {part.trace:.3g}, |G|^2 {part.sq_norm:.3g}")
