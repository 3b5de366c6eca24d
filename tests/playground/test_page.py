"""What stands in the page, read without a browser."""

from __future__ import annotations

import base64
import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnn.playground.features import FEATURES
from jaxnn.playground.page import describe, quantise, render
from jaxnn.playground.training import Run, Settings, points
from jaxnn.playground.views import Views, shown_epochs
from tests.playground.runs import short_run

NETWORK = re.compile(r"""https?:|//[a-z]|\bsrc=|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon""")
SVG = "http://www.w3.org/2000/svg"


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_asks_nothing_of_a_network() -> None:
    page = render(*short_run()).replace(SVG, "")  # a name, not an address
    assert NETWORK.findall(page) == []
    assert "default-src 'none'" in page
    assert NETWORK.findall('<img src="https://example.org/a.png">')


def test_the_page_is_well_formed() -> None:
    open_, seen = [], []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.extend(value for name, value in attrs if name == "id")
            if tag not in ("meta", "link", "input"):
                open_.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

    page = render(*short_run())
    Checker().feed(page)
    assert open_ == []
    assert len(seen) == len(set(seen))
    assert not re.search(r"@[A-Z]+@", page)
    assert page.count("<title>circle: a network in training</title>") == 1


def test_the_data_of_the_page_are_those_of_the_run() -> None:
    done, views = short_run()
    data = data_of(render(done, views))
    frames = len(views.epochs)
    assert data["epochs"] == views.epochs.tolist()
    assert data["layers"] == [3, 4, 3, 1]
    assert data["features"] == ["x", "y", "x²"]
    for name, values in (("inputs", views.inputs), ("output", views.output)):
        assert base64.b64decode(data["maps"][name]) == quantise(values).tobytes()
    for text, values in zip(data["maps"]["hidden"], views.hidden, strict=True):
        assert base64.b64decode(text) == quantise(values).tobytes()
    for frame in (0, frames - 1):
        for layer, params in enumerate(done.at(int(views.epochs[frame]))[::2]):
            np.testing.assert_allclose(data["weights"][frame][layer], params["w"], rtol=1e-3)
            np.testing.assert_allclose(data["biases"][frame][layer], params["b"], rtol=1e-3)
    np.testing.assert_allclose(data["losses"]["train"], done.train_loss, rtol=1e-3)
    np.testing.assert_allclose(data["losses"]["frames"][-1], [done.train_loss[-1], done.test_loss[-1]], rtol=1e-3)
    assert [len(data["points"][name]) for name in ("train", "test")] == [250, 250]


@pytest.mark.slow
def test_the_largest_page_is_compact() -> None:
    rng, sizes = np.random.default_rng(0), [7, *(8,) * 6, 1]
    settings = Settings(data="reg-plane", features=tuple(FEATURES), hidden=(8,) * 6, epochs=1000)
    params = []
    for inputs, units in itertools.pairwise(sizes):
        params += [{"w": rng.normal(size=(1001, inputs, units)), "b": rng.normal(size=(1001, units))}, ()]
    losses = rng.uniform(size=(2, 1001))
    run = Run(settings, short_run()[0].net, points(settings), tuple(params), *losses)
    epochs = shown_epochs(1000)
    noise = [rng.uniform(-1, 1, (len(epochs), n, 28, 28)) for n in sizes]
    views = Views(epochs, noise[0][0], tuple(noise[1:-1]), rng.uniform(-1, 1, (len(epochs), 80, 80)))
    page = render(run, views)
    assert data_of(page)["layers"] == sizes
    assert len(page.encode()) < 2_000_000


@given(hnp.arrays(np.float64, 20, elements=st.floats(-1, 1)))
def test_quantised_values_are_near(values: np.ndarray) -> None:
    assert np.abs((quantise(values).astype(float) - 127) / 127 - values).max() <= 0.5 / 127 + 1e-12


def test_quantised_values_are_cut() -> None:
    assert quantise(np.array([-9.0, 9.0, np.inf])).tolist() == [0, 254, 254]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), ["circle (classification)", "noise 0 (0%)", "4-2 hidden units, tanh", "learning rate 0.03"]),
        (Settings(data="reg-plane", regularization="l1", regularization_rate=0.01), ["regression", "L1 penalty 0.01"]),
        (Settings(hidden=()), ["no hidden units"]),
    ],
)
def test_settings_are_told_in_words(settings: Settings, words: list[str]) -> None:
    told = describe(settings)
    assert all(word in told for word in words)
