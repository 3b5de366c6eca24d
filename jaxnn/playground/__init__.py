"""TensorFlow Playground's data, features and training by its published formulas, as one self-contained HTML page.

    from jaxnn import files
    from jaxnn.playground import Settings, make_views, render, run

    done = run(Settings(data="spiral", features=("x", "y", "sinx"), hidden=(8, 8)))
    files.write_text("playground.html", render(done, make_views(done)))

`data` holds the six data sets, `features` the seven inputs, `penalties` gradient descent with an L1 or L2 penalty;
`draw`, `draw_sources` and `write_gif` make pictures. The command is `jaxnn playground`. The page computes in the
browser, by the same rules: it trains the run on, or anew with other settings. Two things differ from the original:
each epoch shuffles the training points anew, where the original shuffles once; and a last, smaller batch is a step of
its own, where the original carries it over.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.playground import data, features, penalties
from jaxnn.playground.page import render
from jaxnn.playground.pictures import draw, draw_sources, write_gif
from jaxnn.playground.training import Run, Settings, network, run
from jaxnn.playground.views import Views, make_views

__all__ = [
    "Run",
    "Settings",
    "Views",
    "data",
    "draw",
    "draw_sources",
    "features",
    "make_views",
    "network",
    "penalties",
    "render",
    "run",
    "write_gif",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
