"""One self-contained HTML file that shows a run in a browser and trains on: style, script and data are inside."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
from importlib import resources
from typing import Any

import numpy as np

from jaxnn.playground.bundle import bundle
from jaxnn.playground.training import Run, Settings
from jaxnn.playground.views import Views

CURVE_POINTS = 600
"""The largest number of points of a loss curve on the page."""

ORDER_BYTES = 1_200_000
"""The order of the batches is kept for as many epochs as fit into this; after them the page makes its own."""

FORMAT = 2
"""Of the data on the page: what web/run.js reads."""


def describe(settings: Settings) -> str:
    """The settings of a run in one line of words."""
    units = "hidden unit" if settings.hidden == (1,) else "hidden units"
    hidden = f"{'-'.join(map(str, settings.hidden))} {units}, {settings.activation}"
    parts = [
        f"{settings.data} ({settings.problem}), noise {settings.noise:.3g} ({100 * settings.noise:.3g}%)",
        hidden if settings.hidden else "no hidden units",
        f"learning rate {settings.learning_rate:g}, batches of {settings.batch_size}, seed {settings.seed}",
    ]
    if settings.regularization != "none":
        parts.append(f"{settings.regularization.upper()} penalty {settings.regularization_rate:g}")
    return "; ".join(parts)


def render(run: Run, views: Views) -> str:
    """The text of the HTML file.

    The page opens at the end of the run, and computes in the browser, in float64: it trains on from any epoch that it
    shows, or from the start, with these settings or others. With these, it takes the run's points, first weights and
    order of the batches, and its losses equal the run's up to rounding.

    Args:
        run: from `run`.
        views: from `make_views(run)`: the epochs that the page can show without training.

    Example:
        >>> from jaxnn.playground.training import run
        >>> from jaxnn.playground.views import make_views
        >>> done = run(Settings(data="gauss", hidden=(3,), epochs=2))
        >>> render(done, make_views(done)).splitlines()[0]
        '<!doctype html>'
    """
    data = json.dumps(_data(run, views), separators=(",", ":"), allow_nan=False, default=_number)
    text = _template("page.html")
    for name, part in (
        ("TITLE", html.escape(f"{run.settings.data}: a network in training")),
        ("SETTINGS", html.escape(describe(run.settings))),
        ("STYLE", _template("style.css")),
        ("SCRIPT", bundle("main", lambda name: _template(f"{name}.js"))),
        ("DATA", data.replace("<", "\\u003c")),  # no text of the data can close its element
    ):
        text = text.replace(f"@{name}@", part)
    return text


def _data(run: Run, views: Views) -> dict[str, Any]:
    """The run as the page's script reads it.

    Numbers are exact, so that training continues from any frame as it would have here. `orders` is base64 of uint16,
    little-endian: the order of the training points, by epoch. Points are [x, y, target].
    """
    dense, orders = run.at(views.epochs)[::2], run.orders
    kept = np.unique(np.linspace(0, len(run.train_loss) - 1, CURVE_POINTS).round().astype(int))
    order_epochs = min(len(orders), ORDER_BYTES // (2 * orders.shape[1]))
    return {
        "format": FORMAT,
        "settings": dataclasses.asdict(run.settings),
        "dtype": str(dense[0]["w"].dtype),
        "points": {
            name: np.column_stack([part.x, part.y]).astype(float).tolist()
            for name, part in zip(run.data._fields, run.data, strict=True)
        },
        "orders": base64.b64encode(orders[:order_epochs].astype("<u2").tobytes()).decode("ascii"),
        "frames": [
            {
                "epoch": int(epoch),
                "weights": [_exact(layer["w"][f]) for layer in dense],
                "biases": [_exact(layer["b"][f]) for layer in dense],
                "losses": [float(loss[epoch]) for loss in (run.train_loss, run.test_loss)],
            }
            for f, epoch in enumerate(views.epochs)
        ],
        "curve": {"epochs": kept.tolist(), "train": _exact(run.train_loss[kept]), "test": _exact(run.test_loss[kept])},
    }


def _template(name: str) -> str:
    return (resources.files("jaxnn.playground") / "web" / name).read_text(encoding="utf-8")


def _number(value: np.generic) -> Any:
    """A NumPy number of the settings as Python's."""
    return value.item()


def _exact(values: np.ndarray) -> Any:
    """Nested lists of floats: the digits of float64 also for float32, whose own would be read as other numbers."""
    return values.astype(float).tolist()
