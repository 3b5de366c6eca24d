"""One self-contained HTML file that shows a run in a browser: style, script and data are inside."""

from __future__ import annotations

import base64
import html
import json
from importlib import resources
from typing import Any

import numpy as np

from jaxnn.playground.features import FEATURES
from jaxnn.playground.training import Run, Settings
from jaxnn.playground.views import REACH, Views

STEPS = 127
"""Heat maps are stored as bytes: 127 + 127 v for a value v clipped to [-1, 1]; 0 is exact."""

CURVE_POINTS = 600
"""The largest number of points of a loss curve on the page."""


def quantise(values: np.ndarray) -> np.ndarray:
    """Bytes (uint8, 0 .. 254) of the shape of `values`: round(127 v) + 127, v clipped to [-1, 1]."""
    return (np.rint(STEPS * np.clip(values, -1, 1)) + STEPS).astype(np.uint8)


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

    Args:
        run: from `run`.
        views: its heat maps, from `make_views(run)`.

    Example:
        >>> from jaxnn.playground.training import run
        >>> from jaxnn.playground.views import make_views
        >>> done = run(Settings(data="gauss", hidden=(3,), epochs=2))
        >>> render(done, make_views(done)).splitlines()[0]
        '<!doctype html>'
    """
    data = json.dumps(_data(run, views), separators=(",", ":"), allow_nan=False)
    text = _template("page.html")
    for name, part in (
        ("TITLE", html.escape(f"{run.settings.data}: a network in training")),
        ("STYLE", _template("style.css")),
        ("SCRIPT", _template("script.js")),
        ("DATA", data.replace("<", "\\u003c")),  # no text of the data can close its element
    ):
        text = text.replace(f"@{name}@", part)
    return text


def _data(run: Run, views: Views) -> dict[str, Any]:
    """The data of the page's script.

    `maps` holds heat maps as base64 of `quantise`'s bytes: of the inputs; of each hidden layer, by frame, then unit; of
    the output, by frame. `weights` and `biases` are by frame, then layer.
    """
    dense = run.at(views.epochs)[::2]
    kept = np.unique(np.linspace(0, len(run.train_loss) - 1, CURVE_POINTS).round().astype(int))
    frames = range(len(views.epochs))
    return {
        "settings": describe(run.settings),
        "features": [FEATURES[name].label for name in run.settings.features],
        "layers": [len(run.settings.features), *run.settings.hidden, 1],
        "epochs": views.epochs.tolist(),
        "weights": [[_rounded(layer["w"][f]) for layer in dense] for f in frames],
        "biases": [[_rounded(layer["b"][f]) for layer in dense] for f in frames],
        "losses": {
            "epochs": kept.tolist(),
            "train": _rounded(run.train_loss[kept]),
            "test": _rounded(run.test_loss[kept]),
            "frames": [[_rounded(loss[e]) for loss in (run.train_loss, run.test_loss)] for e in views.epochs],
        },
        "reach": REACH,
        "sizes": {"unit": views.inputs.shape[-1], "output": views.output.shape[-1]},
        "maps": {
            "inputs": _packed(views.inputs),
            "hidden": [_packed(layer) for layer in views.hidden],
            "output": _packed(views.output),
        },
        "points": {
            name: np.round(np.column_stack([part.x, part.y]), 2).astype(float).tolist()
            for name, part in zip(run.data._fields, run.data, strict=True)
        },
    }


def _template(name: str) -> str:
    return (resources.files("jaxnn.playground") / "web" / name).read_text(encoding="utf-8")


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(quantise(values).tobytes()).decode("ascii")


def _rounded(values: np.ndarray) -> Any:
    """Four significant digits: as many as the page shows."""
    return np.vectorize(lambda v: float(f"{v:.4g}"), otypes=[float])(values).tolist()
