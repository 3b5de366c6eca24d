"""Figures of features and filters: denoising, features by hand and learned, a network's hierarchy, a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxnn import data, plots
from jaxnn.classic import denoising, features, filters, hierarchy
from jaxnn.classic.features import Plane
from jaxnn.gallery.base import Picture, legend_below
from jaxnn.plots import COLOURS

LEVEL = 0.4
"""The noise of the images in the denoising figure."""

SHOWN = 6
"""Digits there: the first validation image of each of the classes 0 .. 5; units and images in the hierarchy."""

NAMES = {"mnist": "MNIST", "digits": "the embedded digits (MNIST is not here)"}
"""The data by their name, for titles."""

FRAMES = (0, 3, 6, 24)
"""Frames of the scan that are drawn: two of the first row, one of the second, the last."""


def _denoising() -> Figure:
    held_out = data.load("digits").validation
    found = denoising.by_level()
    i, side = found.levels.tolist().index(LEVEL), held_out.x.shape[1]
    first = [int(np.flatnonzero(np.asarray(held_out.y) == k)[0]) for k in range(SHOWN)]
    clean = np.asarray(held_out.x).reshape(len(held_out), -1)
    rows = np.stack([clean[first], found.noisy_images[i, first], found.restored[i, first]])
    fig, (left, right) = plots.figure(1, 2, width=5.4, height=3.8)
    plots.show(left, _tiles(rows.reshape(3, SHOWN, side, side)))
    left.set_xticks([])
    left.set_yticks([(side + 1) * (k + 0.5) for k in range(3)], ["clean", "noisy", "restored"], fontsize=11)
    left.set_title(f"noise of standard deviation {LEVEL:g}", fontsize=12)
    right.plot(found.levels, found.noisy, ":", color="black", linewidth=1.5, label="the noisy image itself")
    for values, marker, colour, name in (
        (found.plain.mean(axis=1), "o", COLOURS[0], "autoencoder, trained without noise"),
        (found.linear, "s", COLOURS[1], "best linear estimate"),
        (found.denoising.mean(axis=1), "D", COLOURS[2], "denoising autoencoder"),
    ):
        right.plot(found.levels, values, marker=marker, color=colour, linewidth=2, label=name)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks(found.levels, [f"{s:g}" for s in found.levels])
    right.set_yticks([0.1, 0.2, 0.4, 0.8], ["0.1", "0.2", "0.4", "0.8"])
    right.minorticks_off()
    right.set_xlabel("standard deviation of the noise", fontsize=11)
    right.set_ylabel("rms error per pixel", fontsize=11)
    right.set_title(f"{len(held_out)} images not trained on", fontsize=12)
    right.grid(alpha=0.3)
    right.legend(fontsize=9, loc="upper left")
    return fig


def _features() -> Figure:
    examples = features.digits()
    pair = features.compare(features.PAIR, examples=examples)
    ten = features.compare(range(10), examples=examples, learned=features.UNITS)
    fig, axes = plots.figure(1, 3, width=4.1, height=4.0)
    for ax, plane, name in zip(axes, pair.planes, ("two features by hand", "two learned features"), strict=False):
        _plane(ax, plane, pair.classes)
        ax.set_title(f"{name}: error {100 * plane.error:.1f}%", fontsize=12)
    bars = axes[2]
    place = np.arange(len(pair.errors))
    for i, (found, told) in enumerate(((pair, f"{pair.classes[0]} against {pair.classes[1]}"), (ten, "ten classes"))):
        percent = [100 * error for error in found.errors.values()]
        boxes = bars.bar(place + 0.4 * (i - 0.5), percent, width=0.38, color=COLOURS[i], label=told)
        bars.bar_label(boxes, [f"{value:.1f}" for value in percent], fontsize=9, padding=2)
    bars.set_yscale("log")
    bars.set_ylim(0.1, 900)
    bars.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    names = [f"{name}\n({_numbers(name, pair.counts, ten.counts)})" for name in pair.errors]
    bars.set_xticks(place, names, fontsize=9)
    bars.set_xlabel("features of the linear classifier\n(their number)", fontsize=11)
    bars.set_ylabel("test error (%)", fontsize=11)
    bars.set_title("errors of linear classifiers", fontsize=12)
    bars.legend(fontsize=10, loc="upper right")
    fig.suptitle(f"Test images of {NAMES[pair.examples]}", fontsize=12)
    return fig


def _numbers(name: str, *counts: dict[str, int]) -> str:
    """The number of features, or both where they differ."""
    return ", ".join(str(n) for n in dict.fromkeys(count[name] for count in counts))


def _plane(ax: Any, plane: Plane, classes: tuple[int, ...]) -> None:
    """Test examples of two classes in the plane of two features, and the line between them."""
    low, high = plane.points.min(axis=0), plane.points.max(axis=0)
    margin = 0.06 * (high - low)
    for label, digit in enumerate(classes):
        x, y = plane.points[plane.labels == label].T
        ax.scatter(x, y, s=12, marker="ox"[label], color=COLOURS[label], linewidths=0.8, alpha=0.5,
                   label=f"digit {digit}")  # fmt: skip
    grid = np.meshgrid(*(np.linspace(a - d, b + d, 80) for a, b, d in zip(low, high, margin, strict=True)))
    score = plane.normal[0] * grid[0] + plane.normal[1] * grid[1] + plane.offset
    ax.contour(*grid, score, levels=[0.0], colors="black", linewidths=1.5)
    ax.set_xlabel(plane.names[0], fontsize=11)
    ax.set_ylabel(plane.names[1], fontsize=11)
    legend_below(ax, columns=2, fontsize=10)


def _hierarchy() -> Figure:
    found = hierarchy.study()
    fig, axes = plots.figure(1, 4, width=3.3, height=3.9)
    for i, (ax, stage) in enumerate(zip(axes, found.stages[1:], strict=False), start=1):
        if stage.strongest is not None:
            plots.show(ax, _tiles(stage.strongest.patches[:SHOWN, :SHOWN, :, :, 0]))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("images, the strongest at the left", fontsize=11)
        size, share = stage.window.size, 100 * np.nanmean(stage.share)
        ax.set_title(f"stage {i}: {size} x {size} pixels\n{share:.0f}% of one class", fontsize=12)
    axes[0].set_ylabel(f"{SHOWN} units of each stage", fontsize=11)
    percent = [100 * stage.probe_error for stage in found.stages]
    boxes = axes[3].bar(range(len(percent)), percent, color=COLOURS[0], width=0.7)
    axes[3].bar_label(boxes, [f"{value:.1f}" for value in percent], fontsize=10, padding=2)
    axes[3].set_xticks(range(len(percent)), ["pixels", *(f"stage {i}" for i in range(1, len(percent)))])
    axes[3].set_ylabel("test error (%)", fontsize=11)
    axes[3].set_xlabel("input of the classifier", fontsize=11)
    axes[3].set_title("least-squares classifier\non each stage", fontsize=12)
    axes[3].margins(y=0.1)
    fig.suptitle(f"Test images of {NAMES[found.examples]}", fontsize=12)
    return fig


def _filter_scan() -> Figure:
    image = np.zeros((7, 7))  # a seven
    image[1, 1:6] = 1
    image[range(2, 6), (5, 4, 3, 2)] = 1
    kernel = filters.FILTERS["horizontal edges"]
    frames = filters.scan(image, kernel)
    fig, axes = plots.figure(3, 5, width=2.4, height=2.5)
    _numbered(axes[0, 0], image, "image, 7 x 7")
    _numbered(axes[1, 0], kernel, "filter, 3 x 3")
    for (above, below), number in zip(axes[:2, 1:].T, FRAMES, strict=True):
        frame = frames[number]
        _numbered(above, image, f"frame {number + 1} of {len(frames)}")
        _framed(above, frame.left, frame.top, len(kernel))
        _numbered(below, frame.output, f"sum of products: {frame.total:g}")
        _framed(below, frame.column, frame.row, 1)
    digit = np.asarray(data.digits().x[0, ..., 0])
    for ax, (name, weights) in zip(axes[2], filters.FILTERS.items(), strict=True):
        output = filters.response(digit, weights, padding=1)
        largest = float(np.abs(output).max())
        ax.imshow(output, cmap="PuOr", vmin=-largest, vmax=largest)
        ax.set_title(name, fontsize=11)
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, name in zip(axes[:, 0], ("input", "filter; outputs", "a digit, filtered"), strict=True):
        ax.set_ylabel(name, fontsize=11)
    return fig


def _framed(ax: Any, left: int, top: int, size: int) -> None:
    """A frame around size x size cells."""
    ax.add_patch(
        Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=COLOURS[2], linewidth=3, zorder=3)
    )


def _numbered(ax: Any, values: np.ndarray, title: str) -> None:
    """A small matrix as coloured cells with their numbers, none for 0; NaN stays empty."""
    largest = max(1.0, float(np.nanmax(np.abs(values))))
    ax.imshow(values, cmap="PuOr", vmin=-1.6 * largest, vmax=1.6 * largest)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and value:
            ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=9)
    ax.set_xticks(np.arange(-0.5, values.shape[1]), [])
    ax.set_yticks(np.arange(-0.5, values.shape[0]), [])
    ax.grid(color="0.85", linewidth=0.6)
    ax.tick_params(length=0)
    ax.set_title(title, fontsize=11)


def _tiles(images: np.ndarray) -> np.ndarray:
    """Images (R, C, H, W) in rows and columns, a grey line between them: one image."""
    rows, columns, height, width = images.shape
    framed = np.pad(np.clip(images, 0, 1), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.25)
    return framed.transpose(0, 2, 1, 3).reshape(rows * (height + 1), columns * (width + 1))[..., None]


PICTURES = (
    Picture(
        "denoising",
        "A denoising autoencoder",
        "A network of 200 ReLUs is trained to return the clean image from one with noise, new in every step. Trained "
        "without noise, the same network learns to copy its input and lets most of the noise through. Denoising beats "
        "the best linear estimate too, which knows means and covariances only, but by less than a tenth. Lines are "
        "means over two seeds.",
        r"\min_\theta\; \frac{1}{D} \left| f_\theta(x + \sigma \epsilon) - x \right|^2, \quad \epsilon \sim N(0, I)",
        "Vincent, P., Larochelle, H., Bengio, Y. & Manzagol, P.-A. (2008). Extracting and composing robust features "
        "with denoising autoencoders.",
        _denoising,
    ),
    Picture(
        "features",
        "Features by hand and learned features",
        "A linear classifier sees an image through features. Intensity and symmetry tell most ones from fives (left); "
        "two features that a network learns separate nearly all (middle). The pixels themselves suffice for two "
        "classes; for ten, learned features err less than they do, and four features by hand on about two images in "
        "three (right).",
        r"\mathrm{intensity} = \overline{x} \qquad \mathrm{symmetry} = -\overline{|x - \mathrm{flip}(x)|}",
        "LeCun, Y., Bottou, L., Bengio, Y. & Haffner, P. (1998). Gradient-based learning applied to document "
        "recognition.",
        _features,
    ),
    Picture(
        "hierarchy",
        "The hierarchy of features in a convolutional network",
        "For six units of each stage of a trained network, what they see of the test images to which they respond "
        "most. Units of the first stage see a few pixels and find edges; those of the last see most of a digit, and "
        "their strongest images are more often of one class (in the titles: the most frequent class among a unit's "
        "nine). A linear classifier on the outputs of a stage errs far less than one on the pixels.",
        r"\mathrm{size} \leftarrow \mathrm{size} + (k - 1)\,\mathrm{step}, \quad "
        r"\mathrm{step} \leftarrow s\,\mathrm{step}",
        "Zeiler, M. D. & Fergus, R. (2014). Visualizing and understanding convolutional networks. Alain, G. & Bengio, "
        "Y. (2016). Understanding intermediate layers using linear classifier probes.",
        _hierarchy,
    ),
    Picture(
        "filter-scan",
        "A filter scans an image",
        "A 3 x 3 filter on an image of 7 x 7 pixels: at each of 25 positions nine products are summed to one number of "
        "the 5 x 5 output. This filter subtracts the row above from the row below: it is positive above a horizontal "
        "line and negative below it. The last row shows five filters made by hand on a digit with a border of zeros, "
        "positive values purple, negative ones orange.",
        r"y_{ij} = \sum_{u=0}^{2} \sum_{v=0}^{2} w_{uv}\, x_{i+u,\, j+v} + b",
        "LeCun, Y., Boser, B., Denker, J. S., et al. (1989). Backpropagation applied to handwritten zip code "
        "recognition.",
        _filter_scan,
    ),
)
