"""Training for devices that are not here: epochs on four chips of a TPU v5e, steps in half precision on an H200.

The rows that each chip computes, and what they send each other; the precision of all products of a step.

    JAXNN_TEST_COMPILED=1 pytest -n 0 -m slow tests/devices/test_compiled_training.py

as `test_compiled.py`; no device is needed.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, optim, train
from jaxnn.cli import config as build
from jaxnn.cli.recipes import RECIPES
from jaxnn.train.meshes import SMALLEST, Split, spec_for
from tests.devices import hlo, hlo_cache, hlo_text
from tests.devices.collectives import sent

if os.environ.get("JAXNN_TEST_COMPILED") == "1":
    WHY = hlo.unavailable()
else:
    WHY = "compiles for a GPU and a TPU in a process and a venv of their own: the module's docstring has the command"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY is not None, reason=str(WHY))]

LOSS = losses.softmax_cross_entropy
STEPS, CHIPS = 4, 4
# Net, one example, batch: every size is of its own, so that the shape of a product tells what it is.
PROBLEMS: dict[str, Any] = {
    "mlp": (models.mlp([512, 2048, 640]), jax.ShapeDtypeStruct((512,), np.float32), 1024, ()),
    "transformer": (
        models.transformer(640, width=512, depth=4, heads=8, stacked=True),
        jax.ShapeDtypeStruct((256,), np.int32), 32, (256,),
    ),
}  # fmt: skip


def compiled(name: str, fsdp: bool, by_hand: bool) -> tuple[Any, Any]:
    """The compiled epoch, and the shapes of its parameters with their specs."""
    net, example, batch, of_label = PROBLEMS[name]
    mesh = Mesh(np.array(hlo.topology("tpu", CHIPS)), ("data",))
    split = Split(mesh, ("data",))

    def placed(leaf: Any, whole: bool = True) -> Any:
        spec = P() if whole else spec_for(leaf.shape, split, SMALLEST)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    opt, key = optim.adam(1e-3), jax.eval_shape(lambda: jax.random.key(0))
    ts = jax.tree.map(lambda a: placed(a, not fsdp), jax.eval_shape(lambda k: train.init(net, opt, k, example), key))
    x = placed(jax.ShapeDtypeStruct((STEPS * batch, *example.shape), example.dtype))
    y = placed(jax.ShapeDtypeStruct((STEPS * batch, *of_label), np.int32))
    vg = backprop.value_and_grad(net, LOSS) if by_hand else jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)
    epoch = train.make_epoch(vg, opt, batch_size=batch, mesh=mesh)
    return epoch.lower(ts, x, y, placed(key)).compile(), ts.params


@pytest.mark.parametrize(
    ("name", "fsdp", "by_hand"),
    [*(("mlp", fsdp, by_hand) for fsdp in (False, True) for by_hand in (False, True)), ("transformer", True, True)],
)
def test_an_epoch_on_four_chips(name: str, fsdp: bool, by_hand: bool) -> None:
    program, params = compiled(name, fsdp, by_hand)
    text, batch = program.as_text(), PROBLEMS[name][2]
    products = [i for c in hlo_text.parse(text).computations.values() for i in c if i.opcode in ("dot", "convolution")]
    firsts = Counter(i.shapes[0].dims[0] for i in products)
    assert firsts[batch // CHIPS] >= 3  # activations and errors: a quarter of the rows on each chip
    assert batch not in firsts
    arrays = sent(text)
    assert {kind for kind, _, _ in arrays} <= {"all-reduce", "all-gather", "reduce-scatter"}
    gathered = Counter({dims: n for (kind, dims, _), n in arrays.items() if kind == "all-gather"})
    is_split = [leaf for leaf in jax.tree.leaves(params) if leaf.sharding.spec != P()]
    expected = Counter(tuple(sorted(n for n in leaf.shape if n > 1)) for leaf in is_split)
    tied = (512, 640) if name == "transformer" else ()  # the table of tokens, looked up and multiplied by
    if tied in expected:
        expected[tied] += 1
    assert gathered == Counter({dims: STEPS * n for dims, n in expected.items()})  # each parameter once a step
    assert bool(is_split) == fsdp
    if not fsdp:  # each gradient once a step, one block of a stack at a time
        reduced = sum(math.prod(dims) * n for (kind, dims, _), n in arrays.items() if kind == "all-reduce")
        parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) + (math.prod(tied) if tied else 0)
        assert STEPS * parameters <= reduced <= STEPS * parameters + 100


def step_report(recipe: str, precision: Any, by_hand: bool) -> hlo.Compiled:
    """One step of a recipe for images of 28 x 28, as the epochs of `jaxnn train` scan it, compiled for the H200."""
    config: Any = dataclasses.replace(RECIPES[recipe], precision=precision)  # type: ignore[type-var]
    net, image = build.build_network(config, (28, 28, 1), 10), (28, 28, 1)
    opt = build.build_optimizer(config, 1000)
    vg = build.build_value_and_grad(config, net)
    if by_hand:
        vg = build.in_precision(precision, backprop.value_and_grad(net, LOSS))
    key = jax.eval_shape(lambda: jax.random.key(0))
    ts = jax.eval_shape(lambda key: train.init(net, opt, key, image), key)
    x = jax.ShapeDtypeStruct((config.batch_size, *image), np.float32)
    y = jax.ShapeDtypeStruct((config.batch_size,), np.int32)
    step = train.make_step(vg, opt, measure=train.grad_norm)
    return hlo_cache.compiled(lambda ts, x, y, key: step(ts, x, y, key=key), (ts, x, y, key), "cuda")


MLP_FLOPS = 2 * 256 * (2 * 784 * 512 + 3 * 512 * 512 + 3 * 512 * 10)
"""Of a step of mnist-mlp: two products of the first layer, which needs no input gradient, three of the others."""

CNN_FLOPS = 2 * 128 * 2 * (26**2 * 9 * 16 + 11**2 * 9 * 16 * 32 + 5 * 5 * 32 * 128 + 128 * 10)
"""At least: outputs and the gradients of the weights of mnist-cnn-fast; input gradients depend on the padding."""


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(("recipe", "least"), [("mnist-mlp", MLP_FLOPS), ("mnist-cnn-fast", CNN_FLOPS)])
def test_all_products_of_a_step_in_bfloat16_are_of_bfloat16(recipe: str, least: int, by_hand: bool) -> None:
    """Forward, backward, loss and Adam."""
    found = step_report(recipe, "bfloat16", by_hand)
    assert set(found.flops) == {"bf16/default"}
    assert found.all_flops >= least


def test_products_of_float32_are_seen() -> None:
    assert step_report("mnist-mlp", "float32", False).flops == {"f32/default": MLP_FLOPS}
