"""What makes two runs the same run: a changed setting is seen, and what grows in use is not."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, models, optim, schedules, train
from jaxnn.data import Draws, make_dataset
from jaxnn.layers import Dense, Kind, Layer, stateless
from jaxnn.train.feeds.sources import seed_of
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.saving.identity import described, differences, fingerprint, identity
from jaxnn.train.saving.lock import FolderLock
from tests.train.problems import KEY, LOSS, NET, OPT, classification
from tests.train.test_resume import Killed, killed_after

X, Y = classification()


def scaled(by: Any) -> Callable[..., Any]:
    """What a user's factory returns: a function with a closure."""

    def loss(outputs: Any, targets: Any) -> Any:
        return by * LOSS(outputs, targets)

    return loss


def with_default(by: Any) -> Callable[..., Any]:
    return lambda outputs, targets, by=by: by * LOSS(outputs, targets)


def gradient(by: float) -> Callable[..., Any]:
    """A `value_and_grad` with the name of what it wraps, and settings of its own."""

    @functools.wraps(train.mean_loss)
    def vg(*args: Any, **more: Any) -> Any:
        value, grads = jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True)(*args, **more)
        return value, jax.tree.map(lambda g: g * by, grads)

    return vg


class Setting:
    """A function with a setting, and methods."""

    def __init__(self, by: Any) -> None:
        self.by = by

    def __call__(self, *args: Any) -> Any:
        return self.by

    def loss(self, *args: Any) -> Any:
        return self.by


class Private:
    """The same, without a public name."""

    def __init__(self, by: Any) -> None:
        self._by = by

    __call__ = Setting.__call__


class Slotted:
    __slots__ = ("by", "unset")

    def __init__(self, by: Any) -> None:
        self.by = by

    __call__ = Setting.__call__


@dataclasses.dataclass
class Thawed:
    by: Any
    log: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    by: Any


class Stream:
    """An iterable whose batches are a function of its attribute."""

    def __init__(self, seed: int) -> None:
        self.seed, self.cache = seed, dict[int, Any]()

    def __iter__(self) -> Any:
        return iter(())

    @functools.cached_property
    def order(self) -> int:
        return 3


class RowsOf:
    """A source of rows without a fingerprint, and with attributes that arrays have."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y, self.shape, self.reads = x, y, x.shape, 0

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, indices: Any) -> Any:
        self.reads += 1
        return self.x[indices], self.y[indices]


class Augmented(RowsOf):
    rng = np.random.default_rng(0)

    def rows(self, indices: Any) -> Any:
        x, y = super().rows(indices)
        return x + self.rng.standard_normal(x.shape).astype(x.dtype), y


class RowTuple(tuple[Any, ...]):
    """A source of rows that is a tuple as well."""

    def __len__(self) -> int:
        return len(self[0])

    def rows(self, indices: Any) -> Any:
        return self[0][indices], self[1][indices]


def ramp(steps: int) -> Any:
    return schedules.linear_schedule(1.0, 0.0, steps)


def layer(by: Any) -> Any:
    return stateless(Kind("own"), lambda params, x: x * by)


def random_layer(by: Any) -> Any:
    return Layer(lambda key, example: ((), ()), functools.partial(Setting(by)), Kind("own"))


PARTS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "optimizer": (optim.adam, 0.1, 0.2),
    "MultiSteps": (lambda k: optim.MultiSteps(optim.adam(0.1), k), 2, 8),
    "inner of MultiSteps": (lambda rate: optim.MultiSteps(optim.adam(rate), 2), 0.1, 1e-3),
    "its methods": (lambda k: optim.MultiSteps(optim.adam(0.1), k).gradient_transformation(), 2, 8),
    "own transformation": (
        lambda by: optim.GradientTransformation(Setting(by).loss, Setting(by).loss), 1.0, 2.0
    ),
    "injected number": (lambda rate: optim.inject_hyperparams(optim.sgd)(learning_rate=rate), 0.1, 0.2),
    "injected schedule": (lambda n: optim.inject_hyperparams(optim.sgd)(learning_rate=ramp(n)), 9, 99),
    "schedule object": (lambda by: optim.sgd(Setting(by)), 0.1, 0.2),
    "object": (Setting, 1e-4, 10.0),
    "private attribute": (Private, 1e-4, 10.0),
    "slots": (Slotted, 1, 2),
    "bool": (Setting, True, False),
    "tuple": (Setting, (1, (2.0, "a")), (1, (2.0, "b"))),
    "array": (Setting, np.arange(3), np.arange(3) + 1),
    "key": (Setting, jax.random.key(0), jax.random.key(1)),
    "object in an object": (lambda by: Setting(Setting(by)), 1, 2),
    "function in an object": (lambda by: Setting(scaled(by)), 1, 2),
    "bound method": (lambda by: Setting(by).loss, 1.0, 5.0),
    "closure": (scaled, 1.0, 2.0),
    "default": (with_default, 1.0, 2.0),
    "partial": (lambda by: functools.partial(scaled, by=by), [1], [2]),
    "frozen dataclass": (Frozen, [1], [2]),
    "dataclass": (Thawed, 1, 2),
    "custom gradient": (gradient, 1.0, 2.0),
    "jitted": (lambda by: jax.jit(scaled(by)), 1.0, 2.0),
    "regularizer in a gradient": (lambda by: default_value_and_grad(NET, LOSS, losses.l2(by)), 1e-4, 1e-3),
    "precision": (lambda by: train.precision(default_value_and_grad(NET, LOSS, losses.l2(by))), 1e-4, 1e-3),
    "stream": (Stream, 1, 2),
    "layer": (layer, 1, 2),
    "layer in a network": (lambda by: models.serial(Dense(2), random_layer(by)), 1, 2),
    "set in a frozen dataclass": (Frozen, {"a", "b"}, {"a", "c"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_a_changed_setting_is_seen(name: str) -> None:
    make, one, other = PARTS[name]
    assert described(make(one)) == described(make(one))
    assert described(make(one)) != described(make(other))


def test_optax_is_described_with_its_settings() -> None:
    optax = pytest.importorskip("optax")
    makers: list[tuple[Callable[[Any], Any], Any, Any]] = [
        (lambda k: optax.MultiSteps(optax.adam(0.1), k), 2, 8),
        (lambda k: optax.MultiSteps(optax.adam(0.1), k).gradient_transformation(), 2, 8),
        (lambda rate: optax.inject_hyperparams(optax.sgd)(learning_rate=rate), 0.1, 0.2),
        (lambda n: optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1.0, 0.0, n)), 9, 99),
        (lambda rate: optax.chain(optax.clip(1.0), optax.adamw(rate)), 0.1, 0.2),
    ]
    for make, one, other in makers:
        assert described(make(one)) == described(make(one)) != described(make(other))


def test_what_grows_in_use_is_no_setting() -> None:
    containers: list[Any] = [[], {}, set(), bytearray(), collections.deque()]
    texts = [described(make(grown)) for grown in containers for make in (scaled, Setting, with_default, Thawed)]
    nested = described(scaled((1, containers[0])))
    thawed, stream = Thawed(1), Stream(1)
    before = described(thawed), described(stream)
    for grown in containers:
        {"list": list.append, "set": set.add, "bytearray": bytearray.append, "deque": collections.deque.append}.get(
            type(grown).__name__, lambda cache, _: cache.update(a=1)
        )(grown, 1)
    thawed.log.append(1)
    stream.cache[0] = stream.order
    assert texts == [described(make(grown)) for grown in containers for make in (scaled, Setting, with_default, Thawed)]
    assert nested == described(scaled((1, containers[0])))
    assert before == (described(thawed), described(stream))
    assert "log=list" in before[0]


def test_the_place_of_an_iterator_is_no_setting() -> None:
    class Iterator(Setting):
        def __next__(self) -> Any:
            return self.by

    class Stateful(Setting):
        get_state = set_state = Setting.loss

    class Resumable(Setting):
        state_dict = load_state_dict = Setting.loss

    for kind in (Iterator, Stateful, Resumable):
        assert described(kind(1)) == described(kind(2)) == kind.__qualname__
    generator = (n for n in range(9))
    before = described(generator)
    next(generator)
    assert before == described(generator)


def test_a_fingerprint_of_ones_own_counts_alone() -> None:
    class Own(Setting):
        def fingerprint(self) -> str:
            return "mine"

    assert described(scaled(Own(1))) == described(scaled(Own(2)))
    assert fingerprint(Own(1)) == "mine"


def test_cycles_and_depth_end() -> None:
    one, other = Setting(None), Setting(None)
    one.by, other.by = other, one
    assert described(one) == "Setting(by=Setting(by=Setting))"
    deep: Any = 1
    for _ in range(500):
        deep = Setting(deep)
    assert described(deep).count("Setting") < 50
    # Shared functions: without a memory the text would double with each.
    shared = scaled(1.0)
    for _ in range(12):
        shared = scaled((shared, shared))
    assert len(described(shared)) < 5000


def test_no_text_has_an_address() -> None:
    things = [object(), Setting(object()), np.random.default_rng(0), Setting(np.tanh), Setting(jax.nn.relu), Path("a"),
              Setting(json), jnp.float32, np.dtype("f4"), Setting(None), Ellipsis, slice(1), itertools.count(),
              Setting([].append), Setting(jax.nn.initializers.he_normal())]  # fmt: skip
    assert not [text for text in map(described, things) if "0x" in text or text.startswith("<")]


def of_linen(p: float) -> Any:
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        p: float = 0.5

        @nn.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any, train: bool = False) -> Any:
            return nn.Dropout(self.p, deterministic=not train)(x)

    return train.from_flax(nn.Sequential([nn.Dense(8), nn.relu, Net(p=p)]), call=lambda module, x, train: module(x))


def of_nnx(p: float) -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return train.from_flax(lambda rngs: nnx.Sequential(nnx.Linear(3, 2, rngs=rngs), nnx.Dropout(p, rngs=rngs)))


def of_equinox(p: float) -> Any:
    nn = pytest.importorskip("equinox").nn
    return train.from_equinox(lambda key: nn.Sequential([nn.Linear(3, 2, key=key), nn.Dropout(p)]))


def of_equinox_module(p: float) -> Any:
    nn = pytest.importorskip("equinox").nn
    return train.from_equinox(nn.Sequential([nn.Linear(3, 2, key=KEY), nn.Dropout(p)]))


@pytest.mark.parametrize("make", [of_linen, of_nnx, of_equinox, of_equinox_module])
def test_settings_of_models_of_other_libraries_are_seen(make: Any) -> None:
    one, again, other = make(0.1), make(0.1), make(0.9)
    assert described(one) == described(again) != described(other)
    assert "0x" not in described(one)
    assert hash(one) != hash(again)  # compared by identity, as all layers
    assert len(repr(one)) < 80


def test_defaults_of_flax_are_left_out_and_those_of_ones_own_are_not() -> None:
    text = described(of_linen(0.5))
    assert "module: Dense, features: 8}" in text
    assert "p: 0.5" in text


def test_rows_are_told_apart_by_some_of_them() -> None:
    text = fingerprint(RowsOf(X, Y))
    assert text == fingerprint(RowsOf(X.copy(), Y.copy()))
    assert "float32[50, 6]" in text
    assert text != fingerprint(RowsOf(X[:33], Y[:33]))
    assert text != fingerprint(RowsOf(X[::-1], Y))
    assert text == fingerprint(RowTuple((X, Y)))
    assert fingerprint(RowsOf(X[:0], Y[:0])) == "0 rows"
    # Augmented as they are read: known by their number and kind.
    assert fingerprint(Augmented(X, Y)) == fingerprint(Augmented(X, Y)) == "float32[50, 6], int32[50]"


def test_data_are_told_apart_whatever_they_are_in() -> None:
    expected = fingerprint((X, Y))
    assert expected == fingerprint(make_dataset(X, Y)) == fingerprint([X, Y])
    assert expected != fingerprint((X, Y[::-1]))
    assert fingerprint((X.tolist(), Y.tolist())).count(",") == 2
    assert fingerprint((X.tolist(), Y.tolist())) != fingerprint((X[::-1].tolist(), Y.tolist()))

    def draw(key: Any, arrays: Any, n: int) -> Any:
        return arrays, arrays

    draws = [fingerprint((Draws(X, draw, steps), ())) for steps in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_arrays_of_objects_are_not_read() -> None:
    objects = [np.array([object(), object()], dtype=object) for _ in range(2)]
    assert described(objects[0]) == described(objects[1]) == "object[2]"


def test_the_seed_of_grain_is_seen() -> None:
    grain = pytest.importorskip("grain")

    def dataset(seed: int) -> Any:
        pairs = grain.MapDataset.source([(a, b) for a, b in zip(X, Y, strict=True)]).seed(seed).shuffle().repeat()
        return pairs.batch(10, drop_remainder=True).to_iter_dataset()

    def loader(seed: int) -> Any:
        sampler = grain.samplers.IndexSampler(50, shuffle=True, seed=seed, shard_options=grain.sharding.NoSharding())
        return grain.DataLoader(data_source=list(range(50)), sampler=sampler)

    for make in (dataset, loader):
        one = make(3)
        text = fingerprint(one)
        next(iter(one))
        assert text == fingerprint(one) == fingerprint(make(3)) != fingerprint(make(4))


def known(**changes: Any) -> dict[str, str]:
    parts = {"net": NET, "loss": LOSS, "regularizer": losses.l2(1e-4)} | changes
    vg = default_value_and_grad(*parts.values())
    others = {"gradient": described(vg, depth=0), "regularizer": parts["regularizer"], "augment": None}
    how: dict[str, Any] = {"batch_size": 10, "partial": None, "others": others}
    return identity(parts["net"], parts["loss"], OPT, (X, Y), KEY, **how)


def test_a_difference_is_told_once() -> None:
    for name, value, part in (
        ("net", models.mlp([6, 9, 3]), "network"),
        ("loss", scaled(2.0), "loss"),
        ("regularizer", losses.l2(1.0), "regularizer"),
    ):
        (told,) = differences(known(), known(**{name: value}))
        assert told.startswith(f"{part}: saved ")
    assert "value_and_state(loss=the loss, net=the network, regularizer=the regularizer" in known()["gradient"]


def test_long_texts_are_cut_where_they_differ() -> None:
    one, other = "a" * 5000 + "b", "a" * 5000 + "c"
    (told,) = differences({"data": one}, {"data": other})
    assert told.endswith("ab, now " + "a" * 50 + "..." + "a" * 50 + "c")
    texts = [known(loss=scaled(("a" * 20_000, number)))["loss"] for number in (1, 2)]
    assert texts[0] != texts[1]
    assert max(map(len, texts)) < 11_000


ELSEWHERE = """
import sys
from tests.train.test_identity import PARTS, RowTuple, X, Y, described, fingerprint
print([described(make(one)) for make, one, _ in PARTS.values()], fingerprint(RowTuple((X, Y))))
"""


@pytest.mark.slow
def test_texts_are_equal_in_every_process() -> None:
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE], check=True, capture_output=True, cwd=root,
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(root)},
        ).stdout
        for seed in (1, 2)
    }  # fmt: skip
    assert len(found) == 1


def fitted(folder: Path, net: Any = NET, opt: Any = OPT, **settings: Any) -> train.FitResult:
    how: dict[str, Any] = {"key": KEY, "epochs": 2, "batch_size": 10, "progress": False} | settings
    return train.fit(net, LOSS, opt, (X, Y), folder=folder, **how)


@pytest.mark.slow
def test_a_run_with_another_setting_is_refused_and_with_a_grown_log_goes_on(tmp_path: Path) -> None:
    log: list[Any] = []

    def augment(key: Any, x: Any) -> Any:
        log.append(x.shape)
        return x

    fitted(tmp_path / "log", augment=augment)
    assert log
    assert len(fitted(tmp_path / "log", augment=augment, epochs=3).history) == 3
    fitted(tmp_path / "steps", opt=optim.MultiSteps(optim.adam(0.1), 2))
    with pytest.raises(ValueError, match=r"holds another run: optimizer: saved .*every_k=2\.0.*now .*every_k=8\.0"):
        fitted(tmp_path / "steps", opt=optim.MultiSteps(optim.adam(0.1), 8))


def test_a_run_goes_on_whose_parameters_have_one_name_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(key: Any, example: Any) -> Any:
        return {"a/b": jnp.ones((6, 3)), "a": {"b": jnp.zeros(3)}}

    net = stateless(Kind("twice"), lambda params, x: x @ params["a/b"] + params["a"]["b"][None], init)
    expected = fitted(tmp_path / "whole", net)
    with monkeypatch.context() as context:
        killed_after(2, context)
        with pytest.raises(Killed):
            fitted(tmp_path, net, save_every=2)
    assert train.checkpoints.Checkpoints(tmp_path).steps()[-1] == 4  # within the first epoch of 5 steps
    np.testing.assert_array_equal(fitted(tmp_path, net, save_every=2).params["a/b"], expected.params["a/b"])


def test_a_lock_that_another_has_taken_over_is_left_alone(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    theirs = json.dumps(json.loads(lock.path.read_text()) | {"host": "elsewhere"})
    lock.path.write_text(theirs)
    lock.release()
    assert lock.path.read_text() == theirs
    lock.path.unlink()
    lock.acquire()
    lock.release()
    assert not lock.path.exists()


def test_a_lock_is_of_the_process_that_took_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was forked."""
    lock = FolderLock(tmp_path)
    lock.acquire()
    with monkeypatch.context() as context:
        context.setattr(os, "getpid", lambda: 1)
        lock.release()
        assert lock.path.exists()
    lock.release()
    assert not lock.path.exists()


FORKED = """
import os, sys, warnings, jax, numpy as np
from jaxnn import losses, models, optim, train
warnings.simplefilter("ignore")
x = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[:, None]
course = train.epochs(models.linear(1), losses.half_squared_error, optim.sgd(0.1), (x, 3 * x), key=jax.random.key(0),
                      epochs=50, batch_size=16, folder=sys.argv[1])
for record, ts in course:
    if record["epoch"] == 2:
        if os.fork() == 0:
            course.close()  # as at its exit, where XLA's threads, which a fork does not copy, may hang
            os._exit(0)
        os.wait()
        print(sorted(os.listdir(sys.argv[1])))
        break
"""


@pytest.mark.slow
def test_a_forked_process_that_ends_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)], check=True, timeout=300, capture_output=True, text=True
    )
    assert run.stdout == "['lock.json']\n"
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000008.npz"]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_the_seed_of_a_key_is_the_number_that_it_was_made_of(impl: str) -> None:
    assert [seed_of(jax.random.key(seed, impl=impl)) for seed in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]
    split = jax.random.split(jax.random.key(7, impl=impl))
    assert len({seed_of(key) for key in split}) == 2
