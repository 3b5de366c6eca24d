"""What stands in the page, read without a browser."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from jaxnn.playground.features import FEATURES
from jaxnn.playground.page import ORDER_BYTES, describe, render
from jaxnn.playground.training import Run, Settings, points
from jaxnn.playground.views import shown_epochs
from tests.playground.runs import SETTINGS, short_run

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
    assert describe(SETTINGS) in page  # without JavaScript too


def test_the_data_of_the_page_are_those_of_the_run() -> None:
    done, views = short_run()
    data = data_of(render(done, views))
    assert data["settings"] | {"features": ("x", "y", "x2"), "hidden": (4, 3)} == dataclasses.asdict(done.settings)
    assert (data["format"], data["dtype"]) == (2, "float32")
    assert [frame["epoch"] for frame in data["frames"]] == views.epochs.tolist()
    for frame in data["frames"]:
        for layer, params in enumerate(done.at(frame["epoch"])[::2]):
            assert np.array_equal(np.array(frame["weights"][layer]), params["w"])  # exact: they are trained on from
            assert np.array_equal(np.array(frame["biases"][layer]), params["b"])
        assert frame["losses"] == [done.train_loss[frame["epoch"]], done.test_loss[frame["epoch"]]]
    assert np.array_equal(data["curve"]["train"], done.train_loss.astype(float))
    assert data["curve"]["epochs"] == list(range(31))
    for name, part in zip(done.data._fields, done.data, strict=True):
        assert np.array_equal(data["points"][name], np.column_stack([part.x, part.y]))
    orders = np.frombuffer(base64.b64decode(data["orders"]), "<u2")
    assert np.array_equal(orders.reshape(30, 250), done.orders)


def test_numbers_of_numpy_are_settings_too() -> None:
    done, views = short_run()
    settings = dataclasses.replace(done.settings, hidden=(np.int64(4), np.int64(3)), noise=np.float64(0.1))
    assert data_of(render(done._replace(settings=settings), views))["settings"]["hidden"] == [4, 3]


@pytest.mark.slow
def test_the_largest_page_is_compact() -> None:
    rng, sizes = np.random.default_rng(0), [7, *(8,) * 6, 1]
    settings = Settings(data="reg-plane", features=tuple(FEATURES), hidden=(8,) * 6, epochs=1000, train_ratio=0.9)
    params = []
    for inputs, units in itertools.pairwise(sizes):
        params += [{"w": rng.normal(size=(1001, inputs, units)), "b": rng.normal(size=(1001, units))}, ()]
    losses, orders = rng.uniform(size=(2, 1001)), np.stack([rng.permutation(1080) for _ in range(1000)])
    run = Run(settings, short_run()[0].net, points(settings), tuple(params), *losses, orders)
    views = short_run()[1]._replace(epochs=shown_epochs(1000))
    page = render(run, views)
    kept = np.frombuffer(base64.b64decode(data_of(page)["orders"]), "<u2")
    assert np.array_equal(kept.reshape(-1, 1080), orders[: ORDER_BYTES // 2160])
    assert len(page.encode()) < 2_500_000


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
