"""What a type checker says of a script that uses the library: nothing of right uses, an error on each wrong line."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from importlib import resources
from pathlib import Path

import pytest

from tests.test_readme import PROGRAMS

RIGHT = """
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn import activations, losses, optim, schedules


class Pair(NamedTuple):
    w: jax.Array
    b: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
    w: jax.Array


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, w: jax.Array) -> None:
        self.w = w

    def tree_flatten(self) -> tuple[list[jax.Array], None]:
        return [self.w], None

    @classmethod
    def tree_unflatten(cls, aux: None, children: list[jax.Array]) -> "Node":
        return cls(*children)


def rate(count: int) -> float:
    return 0.1 / (1 + count)


def train(opt: optim.Optimizer) -> dict[str, jax.Array]:
    params = {"w": jnp.ones(2)}
    state = opt.init(params)

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(params["w"] ** 2)

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = opt.update(grads, state, params)
    updates, state = opt.update(grads, state, params=params, value=value, grad=grads, value_fn=loss)
    updates, state = opt.update(updates=grads, state=state, params=params)
    updates, state = opt.update(grads, state)
    new: dict[str, jax.Array] = optim.apply_updates(params, updates)
    return new


class Halved(NamedTuple):
    steps: jax.Array


def halve() -> optim.GradientTransformation:
    def init(params: dict[str, jax.Array]) -> Halved:
        return Halved(jnp.zeros(()))

    def update(
        grads: dict[str, jax.Array], state: Halved, params: dict[str, jax.Array] | None = None
    ) -> tuple[dict[str, jax.Array], Halved]:
        return {name: g / 2 for name, g in grads.items()}, Halved(state.steps + 1)

    return optim.GradientTransformation(init, update)


class Object:
    def init(self, params: Any) -> tuple[()]:
        return ()

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return updates, state


def signs(learning_rate: optim.ScalarOrSchedule) -> optim.Optimizer:
    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.sign, grads), state

    return optim.chain(optim.Optimizer(lambda params: (), update), optim.scale_by_learning_rate(learning_rate))


opt = optim.adam(1e-3)
array, w, b = np.ones(2, np.float32), jnp.ones(2), jnp.zeros(1)
trees = [array]
for made in (opt.init(w), opt.init(array), opt.init([w, b]), opt.init((w, (b, None))), opt.init({"a": {"w": [w]}})):
    print(made)
opt.init(Pair(w, b)), opt.init(Model(w)), opt.init(Node(w)), opt.init(None)
for tree in (Pair(w, b), Model(w), Node(w)):
    updates, state = opt.update(tree, opt.init(tree), tree)
optim.adam(np.float32(1e-3), b1=jnp.asarray(0.9), eps=0, mu_dtype=jnp.bfloat16, nesterov=True)
optim.adam(rate, mu_dtype="bfloat16")
optim.adam(schedules.cosine_decay_schedule(1e-3, 100), mu_dtype=np.float32)
optim.adam(optax.cosine_decay_schedule(1e-3, 100), mu_dtype=jnp.dtype("float32"))
optim.adam(lambda count: 0.1 / (1 + count))
optim.sgd(1, momentum=0.9)
optim.chain(optim.clip_by_global_norm(1.0), optax.scale(2.0), halve(), signs(0.1), Object())
train(optim.chain(halve(), optim.adamw(1e-3, mask={"w": True})))
optim.masked(optim.adam(1e-3), lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
init, update = optim.adam(1e-3)
update(init(w), init(w), w)
transformation: optim.GradientTransformation = optim.adam(1e-3)
losses.mse(w, array), losses.softmax_cross_entropy(jnp.ones((2, 3)), np.array([0, 1]))
activations.relu(w)
losses.mse([1.0, 2.0], [0.0, 2.0])
"""

PEERS = {
    "equinox": """
        import equinox as eqx

        linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
        module, static = eqx.partition(linear, eqx.is_inexact_array)
        updates, state = opt.update(linear, opt.init(linear), linear)
        updates, state = opt.update(module, opt.init(module), module)
        optim.apply_updates(linear, updates)
    """,
    "flax": """
        import flax.core

        frozen = flax.core.freeze({"w": w})
        updates, state = opt.update(frozen, opt.init(frozen), frozen)
        optim.apply_updates(frozen, updates)
    """,
}
"""Right uses of the pytrees of other libraries, checked where these are installed."""

WRONG = """
import jax
import jax.numpy as jnp

from jaxnn import activations, layers, losses, optim, schedules


def loss(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(params["w"] ** 2)


opt = optim.adam(1e-3)
params = {"w": jnp.ones(2)}
state, grads = opt.init(params), jax.grad(loss)(params)

optim.adam("x")  # arg-type
optim.adam(None)  # arg-type
optim.adam([1e-3])  # arg-type
optim.adam(1j)  # arg-type
optim.adam(lambda: 0.1)  # arg-type, misc
optim.adam(lambda count: "x")  # arg-type, return-value
optim.adam(opt)  # arg-type
optim.adam()  # call-arg
optim.adam(1e-3, rate=1.0)  # call-arg
optim.adam(1e-3, b1="0.9")  # arg-type
optim.adam(1e-3, mu_dtype=3)  # arg-type
optim.adam(1e-3, nesterov="yes")  # arg-type
optim.sgd("x", momentum="y")  # arg-type
optim.clip_by_global_norm("x")  # arg-type
schedules.exponential_decay("x", 10, 0.9)  # arg-type

opt.init()  # call-arg
opt.init("w")  # arg-type
opt.init(3)  # arg-type
opt.init(1.5)  # arg-type
opt.init(loss)  # arg-type
opt.init(jax.jit(loss))  # arg-type
opt.init(params, state)  # call-arg
opt.update()  # call-arg
opt.update(grads)  # call-arg
opt.update("g", state, params)  # arg-type
opt.update(loss, state, params)  # arg-type
opt.update(grads, "s", params)  # arg-type
opt.update(grads, 3, params)  # arg-type
opt.update(grads, state, "w")  # arg-type
opt.update(grads, state, params=3)  # arg-type
opt.update(grads, state, params=loss)  # arg-type
opt.update(grads, state, params, "x")  # call-arg
opt.update(gradients=grads, state=state)  # call-arg
updates = opt.update(grads, state, params) + 1  # operator
updates, state, more = opt.update(grads, state, params)  # misc
optim.apply_updates(params)  # call-arg
optim.apply_updates("w", grads)  # arg-type
optim.apply_updates(params, 1.0)  # arg-type
optim.chain(optim.adam(1e-3)).update(grads)  # call-arg
optim.chain(optim.adam)  # arg-type
optim.chain(optim.adam(1e-3), 0.1)  # arg-type
optim.masked(optim.adam, {"w": True})  # arg-type
optim.partition({"a": optim.adam(1e-3), "b": "sgd"}, {"w": "a"})  # dict-item
optim.lookahead("sgd", 5, 0.5)  # arg-type
optim.Optimizer(opt.init)  # call-arg
optim.Optimizer("x", opt.update)  # arg-type
optim.GradientTransformation(opt.init, lambda grads: grads)  # arg-type
opt.step(grads)  # attr-defined
optim.Adam(1e-3)  # attr-defined

losses.mse("x", jnp.ones(2))  # arg-type
losses.mse(jnp.ones(2))  # call-arg
losses.huber(jnp.ones(2), jnp.ones(2), delta="x")  # arg-type
activations.relu("x")  # arg-type
layers.Dense("x")  # arg-type
layers.dense.init(jax.random.key(0), 2, 3, dtype=3)  # arg-type
"""


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("jaxnn").joinpath("py.typed").is_file()


@pytest.mark.slow
def test_a_type_checker_accepts_right_uses_and_refuses_each_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = pytest.importorskip("mypy.api")
    peers = [textwrap.dedent(text) for name, text in PEERS.items() if importlib.util.find_spec(name)]
    lenient = "# mypy: allow-untyped-defs, allow-untyped-calls\n"
    shown = {title: program for title, program in PROGRAMS.items() if "optim." in program}
    assert len(shown) >= 4
    scripts = {"right.py": RIGHT + "".join(peers), "wrong.py": WRONG}
    scripts |= {f"shown_{i}.py": lenient + program for i, program in enumerate(shown.values())}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(Path(__file__).parent.parent))
    missing = [f"--untyped-calls-exclude={name}" for name in ("jax", "optax", "flax", "equinox")]
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--ignore-missing-imports"]
    found, problems, _ = api.run([*options, *missing, *scripts])
    assert not problems
    errors: dict[tuple[str, int], set[str]] = {}
    for name, line, code in re.findall(r"^(\w+\.py):(\d+): error: .*\[([a-z-]+)\]$", found, re.MULTILINE):
        errors.setdefault((name, int(line)), set()).add(code)
    expected = {
        ("wrong.py", number): set(line.split("  # ")[1].split(", "))
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "  # " in line
    }
    assert errors == expected, found
