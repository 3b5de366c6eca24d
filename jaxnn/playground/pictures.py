"""A run as a figure of one epoch, and as an animated GIF of all shown epochs.

`views` are the heat maps of the run, from `make_views(run)`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from jaxnn import files, plots
from jaxnn.playground.data import SOURCES
from jaxnn.playground.features import FEATURES
from jaxnn.playground.training import Run
from jaxnn.playground.views import REACH, Views

NEGATIVE, POSITIVE = plots.COLOURS[1], plots.COLOURS[0]

SIGNED = LinearSegmentedColormap.from_list("signed", [NEGATIVE, "#F7F7F7", POSITIVE])
"""Vermilion for -1, nearly white for 0, blue for +1."""

DELAY = 150
"""Milliseconds per frame of the GIF."""

HOLD = 2000
"""Milliseconds for the last frame."""

GIF_DPI = 72

TILE = 0.36
"""Half the side of a unit's heat map; units are 1 apart."""

SHOWN_NOISE = (0.0, 0.25)
"""The noise of the two rows of `draw_sources`."""

Update: TypeAlias = Callable[[int], None]
"""Shows a frame, an index into `views.epochs`."""


def draw(run: Run, views: Views, frame: int = -1) -> Figure:
    """The network with its units' heat maps and weights, the output with the points, and the losses, at one epoch.

    Args:
        frame: index into `views.epochs`; by default the last.

    Example:
        >>> from jaxnn.playground.training import Settings, run
        >>> from jaxnn.playground.views import make_views
        >>> done = run(Settings(data="gauss", hidden=(3,), epochs=2))
        >>> draw(done, make_views(done)).axes[1].get_title()
        'output after 2 epochs'
    """
    fig, update = _stage(run, views)
    update(frame)
    return fig


def write_gif(run: Run, views: Views, path: Path) -> Path:
    """Write all frames as a looping GIF atomically, into an existing folder, and return its path.

    Example:
        >>> import tempfile
        >>> from jaxnn.playground.training import Settings, run
        >>> from jaxnn.playground.views import make_views
        >>> done = run(Settings(data="gauss", hidden=(3,), epochs=2))
        >>> write_gif(done, make_views(done), Path(tempfile.mkdtemp()) / "training.gif").name
        'training.gif'
    """
    fig, update = _stage(run, views)
    fig.set_dpi(GIF_DPI)
    canvas: Any = FigureCanvasAgg(fig)
    frames = []
    for frame in range(len(views.epochs)):
        update(frame)
        canvas.draw()
        fig.set_layout_engine("none")  # keep the layout of the first frame
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    palette = frames[-1].quantize(256, method=Image.Quantize.MAXCOVERAGE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [DELAY] * (len(frames) - 1) + [HOLD]
    out = io.BytesIO()
    small[0].save(out, format="GIF", save_all=True, append_images=small[1:], duration=durations, loop=0)
    return files.write_bytes(path, out.getvalue())


def draw_sources() -> Figure:
    """The six data sets, without noise above and with noise below.

    Example:
        >>> len(draw_sources().axes)  # the last one is the scale of the targets
        13
    """
    fig, axes = plots.figure(2, len(SOURCES), width=2.3, height=2.5, sharex=True, sharey=True)
    for row, noise in zip(axes, SHOWN_NOISE, strict=True):
        for ax, (name, source) in zip(row, SOURCES.items(), strict=True):
            made = source.make(jax.random.key(0), source.points, noise=noise)
            x = np.asarray(made.x)
            dots = ax.scatter(x[:, 0], x[:, 1], 5, np.asarray(made.y), cmap=SIGNED, vmin=-1, vmax=1, linewidths=0)
            ax.set(xlim=(-REACH - 1, REACH + 1), ylim=(-REACH - 1, REACH + 1), facecolor="#DDDDDD")
            ax.set_title(f"{name}, noise {noise:.0%}", fontsize=10)
        row[0].set_ylabel("y", fontsize=11)
        row[0].set_yticks([-5, 0, 5])
    for ax in axes[-1]:
        ax.set_xlabel("x", fontsize=11)
    fig.colorbar(dots, ax=axes.ravel().tolist(), label="target", ticks=[-1, 0, 1], shrink=0.8)
    return fig


def _stage(run: Run, views: Views) -> tuple[Figure, Update]:
    """A figure without values, and the function that sets those of a frame."""
    columns = len(run.settings.hidden) + 2
    ratios = [max(0.9 * columns, 2.6), 3.2, 3.0]
    fig, axes = plots.figure(1, 3, width=sum(ratios) / 2.1, height=4.2, gridspec_kw={"width_ratios": ratios})
    fig.suptitle(f"{run.settings.data}: a network in training", fontsize=13)
    updates = [
        _network(axes[0], run, views, aspect=ratios[0] / 2.4),
        _output(axes[1], run, views),
        _losses(axes[2], run, views),
    ]

    def update(frame: int) -> None:
        for each in updates:
            each(frame)

    return fig, update


def _network(ax: Any, run: Run, views: Views, aspect: float) -> Update:
    """Features and units in columns, each a heat map, the weights between as lines; `aspect` is width over height."""
    dense = run.at(views.epochs)[::2]
    heights = [len(run.settings.features), *run.settings.hidden, 1]
    rows = [(n - 1) / 2 - np.arange(n) for n in heights]
    reach = max(max(heights), 3.5) / 2 + 0.1
    margins = 2 * TILE + 1.2
    pitch = max(1.4, (2 * reach * aspect - margins) / (len(heights) - 1))  # between columns; units stand 1 apart
    links = [
        [(pitch * c + TILE, rows[c][i]), (pitch * (c + 1) - TILE, rows[c + 1][j])]
        for c in range(len(heights) - 1)
        for i in range(heights[c])
        for j in range(heights[c + 1])
    ]
    lines = ax.add_collection(LineCollection(links, zorder=1, capstyle="round"))
    maps = [views.inputs[None], *views.hidden, views.output[:, None]]
    tiles = []
    for c, units in enumerate(maps):
        for j in range(units.shape[1]):
            box = (pitch * c - TILE, pitch * c + TILE, rows[c][j] - TILE, rows[c][j] + TILE)
            image = ax.imshow(units[0, j], cmap=SIGNED, vmin=-1, vmax=1, extent=box, zorder=2)
            ax.add_patch(_frame(box))
            tiles += [(image, units[:, j])] if c else []
    for name, y in zip(run.settings.features, rows[0], strict=True):
        ax.text(-TILE - 0.12, y, FEATURES[name].label, ha="right", va="center", fontsize=10)
    ax.set_xlim(-TILE - 1.1, pitch * (len(heights) - 1) + TILE + 0.1)
    ax.set_ylim(-reach, reach)
    ax.set_axis_off()
    ax.set_title("each unit over the plane;\nlines: weights, blue > 0, orange < 0", fontsize=11)

    def update(frame: int) -> None:
        weights = np.concatenate([layer["w"][frame].ravel() for layer in dense])
        lines.set_linewidths(np.minimum(0.2 + 1.6 * np.abs(weights), 8))
        lines.set_colors([POSITIVE if w > 0 else NEGATIVE if w < 0 else "#BBBBBB" for w in weights])
        lines.set_alpha(0.4 + 0.5 * np.minimum(np.abs(weights), 1))
        for image, values in tiles:
            image.set_data(values[frame])

    return update


def _frame(box: tuple[float, float, float, float]) -> Rectangle:
    left, right, bottom, top = box
    return Rectangle(
        (left, bottom), right - left, top - bottom, fill=False, edgecolor="#444444", linewidth=0.8, zorder=3
    )


def _output(ax: Any, run: Run, views: Views) -> Update:
    """The output all over the plane, with the training points."""
    extent = (-REACH, REACH, -REACH, REACH)
    image = ax.imshow(views.output[0], cmap=SIGNED, vmin=-1, vmax=1, extent=extent, interpolation="bilinear")
    x, y = np.asarray(run.data.train.x), np.asarray(run.data.train.y)
    ax.scatter(
        x[:, 0],
        x[:, 1],
        14,
        y,
        cmap=SIGNED,
        vmin=-1,
        vmax=1,
        edgecolors="white",
        linewidths=0.5,
        label="training points",
    )
    ax.set_xlim(-REACH, REACH)
    ax.set_ylim(-REACH, REACH)
    ax.set_xlabel("x", fontsize=11)
    ax.set_ylabel("y", fontsize=11)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, ticks=[-1, 0, 1], extend="both")
    bar.ax.set_ylabel("output; dots: targets", fontsize=10)

    def update(frame: int) -> None:
        image.set_data(views.output[frame])
        epoch = int(views.epochs[frame])
        ax.set_title(f"output after {epoch} epoch{'s' * (epoch != 1)}", fontsize=11)

    return update


def _losses(ax: Any, run: Run, views: Views) -> Update:
    """Both loss curves, with a marker at the frame."""
    for loss, name, colour, style in (
        (run.train_loss, "training", "black", "-"),
        (run.test_loss, "test", plots.COLOURS[3], "--"),
    ):
        ax.plot(loss, color=colour, linestyle=style, linewidth=2, label=name)
    now = ax.axvline(0, color=plots.COLOURS[0], linewidth=1.2)
    ax.set_ylim(0, 1.25 * max(run.train_loss.max(), run.test_loss.max(), 1e-9))  # room for the legend
    ax.set_xlabel("epoch", fontsize=11)
    ax.set_ylabel(r"loss: mean of $\frac{1}{2}(y-t)^2$", fontsize=11)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=10, loc="upper right")

    def update(frame: int) -> None:
        epoch = int(views.epochs[frame])
        now.set_xdata([epoch, epoch])
        ax.set_title(f"loss: training {run.train_loss[epoch]:.3f}, test {run.test_loss[epoch]:.3f}", fontsize=11)

    return update
