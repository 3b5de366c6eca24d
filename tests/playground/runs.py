"""One short run that the tests of what is made of runs share."""

from __future__ import annotations

import functools

from jaxnn.playground.training import Run, Settings, run
from jaxnn.playground.views import Views, make_views

SETTINGS = Settings(data="circle", features=("x", "y", "x2"), hidden=(4, 3), learning_rate=0.1, noise=0.1, epochs=30)


@functools.cache
def short_run() -> tuple[Run, Views]:
    """Thirty epochs on the circle, with heat maps."""
    done = run(SETTINGS)
    return done, make_views(done)
