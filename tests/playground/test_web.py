"""The page's numerics in Chromium, module by module, against NumPy and the Python package."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.playground.data import CENTRES, SIGNS, SOURCES
from jaxnn.playground.features import FEATURES, featurize
from jaxnn.playground.training import ACTIVATIONS, MAX_LAYERS, MAX_UNITS
from tests.playground.conftest import serve
from tests.playground.runs import short_run

N, SIZES = 11, (3, 4, 3, 1)
SETTINGS = {"learning_rate": 0.3, "batch_size": 4, "regularization_rate": 0.05}

TRAIN = """async ({settings, layers, x, t, orders, points}) => {
    const {forward, meanLoss} = await import("/network.js"), {allAlive, trainEpoch} = await import("/descent.js");
    const net = {...settings, layers: layers.map(([w, b]) => ({
        inputs: w.length / b.length, units: b.length, w: Float64Array.from(w), b: Float64Array.from(b),
    }))};
    const alive = allAlive(net.layers), inputs = Float64Array.from(x), targets = Float64Array.from(t), losses = [];
    for (const order of orders) {
        trainEpoch(net, alive, inputs, targets, Uint16Array.from(order), settings);
        losses.push(meanLoss(net, inputs, targets));
    }
    return [net.layers.map(({w, b}) => [[...w], [...b]]), losses, [...forward(net, inputs, t.length).at(-1)]];
}"""


def value(kind: str, z: np.ndarray) -> np.ndarray:
    return {"relu": np.maximum(z, 0), "tanh": np.tanh(z), "sigmoid": 1 / (1 + np.exp(-z)), "linear": z}[kind]


def slope(kind: str, z: np.ndarray) -> np.ndarray:
    s = value("sigmoid", z)
    return {"relu": (z > 0) * 1.0, "tanh": 1 - np.tanh(z) ** 2, "sigmoid": s - s**2, "linear": np.ones_like(z)}[kind]


def train_in_numpy(settings: Any, layers: Any, x: np.ndarray, t: np.ndarray, orders: Any) -> Any:
    """What TRAIN does, as matrices: layers, losses, outputs."""
    kinds = [
        *[settings["activation"]] * (len(layers) - 1),
        "tanh" if settings["problem"] == "classification" else "linear",
    ]
    rate, strength, penalty = (settings[k] for k in ("learning_rate", "regularization_rate", "regularization"))
    layers = [(w.copy(), b.copy()) for w, b in layers]
    dead = [np.zeros_like(w, bool) for w, _ in layers]

    def forward(x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        a, z = [x], []
        for (w, b), kind in zip(layers, kinds, strict=True):
            z.append(a[-1] @ w + b)
            a.append(value(kind, z[-1]))
        return a, z

    losses = []
    for order in orders:
        for start in range(0, len(x), settings["batch_size"]):
            batch = order[start : start + settings["batch_size"]]
            a, z = forward(x[batch])
            upstream = (a[-1] - t[batch, None]) / len(batch)
            for k in reversed(range(len(layers))):
                w, b = layers[k]
                delta = upstream * slope(kinds[k], z[k])
                upstream = delta @ w.T
                moved = w - rate * a[k].T @ delta
                if penalty == "l2":
                    moved = moved - rate * strength * w
                if penalty == "l1":
                    after = moved - rate * strength * np.sign(w)
                    dead[k] |= np.sign(moved) * np.sign(after) < 0
                    moved = np.where(dead[k], 0, after)
                layers[k] = moved, b - rate * delta.sum(axis=0)
        losses.append(0.5 * np.mean((forward(x)[0][-1][:, 0] - t) ** 2))
    return layers, losses, forward(x)[0][-1][:, 0]


@functools.cache
def task() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    layers = [(rng.uniform(-0.5, 0.5, shape), np.full(shape[1], 0.1)) for shape in itertools.pairwise(SIZES)]
    orders = [rng.permutation(N) for _ in range(12)]
    return layers, rng.normal(size=(N, SIZES[0])), rng.choice([-1.0, 1.0], N), orders


def farthest(page: Any, **settings: Any) -> float:
    """The largest difference of weights, biases, losses and outputs from NumPy's."""
    layers, x, t, orders = task()
    given = {
        "settings": settings,
        "layers": [[w.ravel().tolist(), b.tolist()] for w, b in layers],
        "x": x.ravel().tolist(),
        "t": t.tolist(),
        "orders": [order.tolist() for order in orders],
    }
    got, losses, outputs = page.evaluate(TRAIN, given)
    expected, expected_losses, expected_outputs = train_in_numpy(settings, layers, x, t, orders)
    pairs = [(losses, expected_losses), (outputs, expected_outputs)]
    for (w, b), (expected_w, expected_b) in zip(got, expected, strict=True):
        pairs += [(w, expected_w.ravel()), (b, expected_b)]
    return max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in pairs)


@pytest.mark.parametrize("problem", ["classification", "regression"])
@pytest.mark.parametrize("regularization", ["none", "l1", "l2"])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_training_is_that_of_numpy(modules: Any, activation: str, regularization: str, problem: str) -> None:
    settings = SETTINGS | {"activation": activation, "regularization": regularization, "problem": problem}
    assert farthest(modules, **settings) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "settings"),
    [
        (("network.js", "(y - t[e]) / n", "y - t[e]"), {}),
        (("network.js", "(y - t[e]) / n", "(t[e] - y) / n"), {}),
        (("network.js", "d * slope(outputs[k])", "d"), {}),
        (("network.js", "slope: a => 1 - a * a", "slope: a => 1 - a"), {}),
        (("network.js", "slope: a => a * (1 - a)", "slope: a => a * (1 + a)"), {"activation": "sigmoid"}),
        (("network.js", "w[i * units + j] += x", "w[j * inputs + i] += x"), {}),
        (("network.js", "delta[e * units + j] * w[i * units + j]", "delta[e * units + j] * w[j * inputs + i]"), {}),
        (("network.js", "row.set(b);", ""), {}),
        (("network.js", "** 2 / 2, 0)", "** 2, 0)"), {}),
        (("descent.js", "w - rate * (g + strength * w)", "w - rate * g + strength * w"), {"regularization": "l2"}),
        (("descent.js", "Math.sign(w[k]);", "Math.sign(moved);"), {"regularization": "l1"}),
        (("descent.js", "alive[k] = 0;", ";"), {"regularization": "l1"}),
        (("descent.js", "Math.sign(moved) * Math", "Math.sign(w[k]) * Math"), {"regularization": "l1"}),
        (("descent.js", "start < n;", "start + settings.batch_size <= n;"), {}),
        (("descent.js", "start += settings.batch_size) {", "start += settings.batch_size + 1) {"), {}),
    ],
    ids=lambda v: v[1] if isinstance(v, tuple) else "",
)
def test_a_wrong_rule_is_noticed(browser: Any, mutant: tuple[str, str, str], settings: dict[str, str]) -> None:
    page = serve(browser, mutant)
    options = {"activation": "tanh", "regularization": "none", "problem": "classification"} | settings
    assert not farthest(page, **SETTINGS | options) < 1e-4
    page.close()


def test_the_page_knows_what_the_package_knows(modules: Any) -> None:
    found = modules.evaluate("""async () => {
        const {FEATURES} = await import("/features.js"), {SOURCES} = await import("/data.js");
        const {ACTIVATIONS} = await import("/network.js"), {MAX_LAYERS, MAX_UNITS} = await import("/session.js");
        return [Object.entries(FEATURES).map(([name, {label}]) => [name, label]),
            Object.entries(SOURCES).map(([name, {problem, points}]) => [name, problem, points]),
            Object.keys(ACTIVATIONS), MAX_LAYERS, MAX_UNITS];
    }""")
    assert found == [
        [[name, feature.label] for name, feature in FEATURES.items()],
        [[name, source.problem, source.points] for name, source in SOURCES.items()],
        list(ACTIVATIONS),
        MAX_LAYERS,
        MAX_UNITS,
    ]


def test_features_are_those_of_the_package(modules: Any) -> None:
    points = np.random.default_rng(1).uniform(-6, 6, (20, 2)).astype(np.float32)
    found = modules.evaluate(
        """async ([names, x]) => [...(await import("/features.js")).featurize(names, Float64Array.from(x))]""",
        [list(FEATURES), points.ravel().astype(float).tolist()],
    )
    expected = featurize(tuple(FEATURES), jnp.asarray(points))
    np.testing.assert_allclose(np.reshape(found, (20, len(FEATURES))), expected, rtol=2e-6, atol=1e-6)


def made(page: Any, data: str, noise: float, seed: int = 0, ratio: float = 0.5) -> tuple[np.ndarray, np.ndarray, int]:
    """The page's points, their targets, and how many of them are for training."""
    parts = page.evaluate(
        """async ([settings, seed]) => {
            const {train, test} = (await import("/data.js")).makePoints(settings, seed);
            return [train, test].map(({x, y}) => [[...x], [...y]]);
        }""",
        [{"data": data, "noise": noise, "train_ratio": ratio}, seed],
    )
    x, y = (np.concatenate([np.array(part[i]) for part in parts]) for i in (0, 1))
    return x.reshape(-1, 2), y, len(parts[0][1])


def target(data: str, x: np.ndarray) -> np.ndarray:
    """The formula of the targets of points without noise."""
    r = np.hypot(*x.T)
    if data == "reg-gauss":
        away = np.linalg.norm(x[:, None] - np.array(CENTRES), axis=2)
        height = np.clip(1 - away / 2, 0, 1)
        return np.array(SIGNS)[height.argmax(axis=1)] * height.max(axis=1)
    turn = r * 3.5 * np.pi / 5
    return {
        "circle": np.where(r < 2.5, 1.0, -1.0),
        "xor": np.where(x[:, 0] * x[:, 1] >= 0, 1.0, -1.0),
        "spiral": np.where(x[:, 0] * np.sin(turn) + x[:, 1] * np.cos(turn) >= 0, 1.0, -1.0),
        "reg-plane": x.sum(axis=1) / 10,
    }[data]


@pytest.mark.parametrize("data", ["circle", "xor", "spiral", "reg-plane", "reg-gauss"])
def test_targets_follow_the_formulas(modules: Any, data: str) -> None:
    x, y, count = made(modules, data, 0.0)
    assert (len(y), count) == (SOURCES[data].points, SOURCES[data].points // 2)
    off = np.hypot(*x.T) > 1e-9  # both arms of the spiral begin at 0
    np.testing.assert_allclose(y[off], target(data, x)[off], atol=1e-12)
    assert np.abs(x).max() <= {"circle": 5, "spiral": 5, "xor": 5.3}.get(data, 6)
    if data == "xor":
        assert np.abs(x).min() >= 0.3


@pytest.mark.parametrize(("data", "reach"), [("circle", 5), ("xor", 5), ("reg-plane", 6), ("reg-gauss", 6)])
def test_noise_moves_where_the_target_is_evaluated(modules: Any, data: str, reach: float) -> None:
    """The mean squared change of the targets, against the formula with NumPy's noise at the same points."""
    x, y, _ = made(modules, data, 0.4)
    shift = 0.4 * np.random.default_rng(0).uniform(-reach, reach, (50, *x.shape))
    changes = [np.mean((target(data, x + e) - target(data, x)) ** 2) for e in shift]
    assert abs(np.mean((y - target(data, x)) ** 2) - np.mean(changes)) < 4 * np.std(changes)
    assert np.mean(changes) > 8 * np.std(changes)


def test_noise_moves_the_points_of_the_spiral(modules: Any) -> None:
    clean, _, _ = made(modules, "spiral", 0.0)
    noisy, _, _ = made(modules, "spiral", 0.4)
    away = np.linalg.norm(noisy[:, None] - clean, axis=2).min(axis=1)  # from some point of the arms
    assert 0.1 < away.mean() < 0.3
    assert away.max() < 0.4 * np.sqrt(2)


def test_gauss_has_its_variance(modules: Any) -> None:
    for noise in (0.0, 0.5):
        drawn = [made(modules, "gauss", noise, seed) for seed in range(8)]
        x, y = (np.concatenate([part[i] for part in drawn]) for i in (0, 1))
        rest = x - 2 * y[:, None]
        variance = 0.5 + 7 * noise
        assert abs(rest.mean()) < 4 * np.sqrt(variance / rest.size)
        assert abs(rest.var() / variance - 1) < 4 * np.sqrt(2 / rest.size)


def test_points_are_split_and_seeded(modules: Any) -> None:
    first, again, other = (made(modules, "circle", 0.1, seed, 0.7) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    assert first[2] == 350
    assert 0.4 < (first[1][:350] > 0).mean() < 0.6


def test_random_numbers_are_uniform_and_orders_permutations(modules: Any) -> None:
    drawn, normal, order, same = modules.evaluate("""async () => {
        const {makeRandom} = await import("/random.js"), random = makeRandom(1);
        const draw = f => Array.from({length: 4000}, f);
        return [draw(() => random.uniform(-2, 3)), draw(() => random.normal()), [...random.permutation(50)],
            makeRandom(7, 1).uniform() === makeRandom(7, 2).uniform()];
    }""")
    share = np.sort((np.array(drawn) + 2) / 5)
    assert np.abs(share - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / np.sqrt(4000)  # Kolmogorov, 1 percent
    assert abs(np.mean(normal)) < 4 / np.sqrt(4000)
    assert abs(np.var(normal) - 1) < 4 * np.sqrt(2 / 4000)
    assert sorted(order) == list(range(50)) != order
    assert not same


def test_first_weights_are_uniform_and_biases_a_tenth(modules: Any) -> None:
    w, b = modules.evaluate("""async () => {
        const {makeRandom} = await import("/random.js"), {makeLayers} = await import("/network.js");
        const layers = makeLayers([7, 8, 8, 8, 8, 1], makeRandom(0, 1));
        return ["w", "b"].map(name => layers.flatMap(layer => [...layer[name]]));
    }""")
    assert (len(w), len(b)) == (7 * 8 + 3 * 64 + 8, 33)
    assert 0.45 < np.abs(w).max() <= 0.5
    assert abs(np.mean(w)) < 4 * np.sqrt(1 / 12 / len(w))
    assert set(b) == {0.1}


@pytest.mark.slow
def test_maps_are_those_of_the_package(modules: Any) -> None:
    run, views = short_run()
    layers = run.at(len(run.train_loss) - 1)[::2]
    given = [[np.ravel(layer["w"]).astype(float).tolist(), layer["b"].astype(float).tolist()] for layer in layers]
    for size, expected in ((28, [*(maps[-1] for maps in views.hidden)]), (80, [views.output[-1][None]])):
        found = modules.evaluate(
            """async ([layers, features, size]) => {
                const {layerMaps, unitMap} = await import("/maps.js");
                const net = {activation: "tanh", problem: "classification", layers: layers.map(([w, b]) => ({
                    inputs: w.length / b.length, units: b.length, w: Float64Array.from(w), b: Float64Array.from(b)}))};
                return layerMaps(net, features, size).slice(1).map((values, l) => {
                    const units = layers[l][1].length;
                    return layers[l][1].map((_, unit) => [...unitMap(values, units, unit)]);
                });
            }""",
            [given, list(run.settings.features), size],
        )
        for maps, values in zip(found if size == 28 else found[-1:], expected, strict=False):
            np.testing.assert_allclose(np.reshape(maps, values.shape), values, atol=2e-5)


def test_the_zero_line_is_where_the_map_is_zero(modules: Any) -> None:
    path = modules.evaluate("""async () => {
        const {pixels, zeroLine} = await import("/maps.js"), x = pixels(40);
        return zeroLine(Float64Array.from({length: 1600}, (_, p) => 9 - x[2 * p] ** 2 - x[2 * p + 1] ** 2), 40);
    }""")
    ends = np.array([[float(v) for v in end.split()] for piece in path.split("M")[1:] for end in piece.split("L")])
    plane = ends * 12 / 40 - 6
    assert len(ends) > 80
    np.testing.assert_allclose(np.hypot(*plane.T), 3, atol=0.02)


def test_ticks_are_round(modules: Any) -> None:
    found = modules.evaluate(
        """async tops => (m => tops.map(m.ticks))(await import("/chart.js"))""", [0.52, 1.0, 300, 0.0123]
    )
    assert found == [
        [0, 0.2, 0.4],
        [0, 0.2, 0.4, 0.6, 0.8, 1],
        [0, 100, 200, 300],
        [0, 0.005, 0.01],
    ]
