"""`jaxnn predict`: a finished run applied to images."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import rich.console
import rich.table
import tyro

from jaxnn.activations import softmax
from jaxnn.cli.runs import read_run
from jaxnn.data import read_idx
from jaxnn.train import make_outputs

SHOWN = 20


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Classify images with a run that `jaxnn train` wrote."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A .npy or IDX (.gz too) file of one image or many, an .npz file with an array "x", or a .png."""
    levels: float = 255.0
    """The value of full ink in images of integers (16 for the raw UCI digits); floats must lie in [0, 1]."""
    invert: bool = False
    """Exchange ink and paper: the training images have ink 1 on paper 0, scans mostly the reverse."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None
    """CSV file for all predictions; the table shows the first 20."""


def predict(config: PredictConfig) -> list[tuple[str, float]]:
    """Print the guess and its confidence for each image; return them all."""
    run = read_run(config.run)
    images = read_images(config.images, run.example, levels=config.levels)
    if config.invert:
        images = 1 - images
    probabilities = np.asarray(softmax(make_outputs(run.net)(run.params, run.state, jnp.asarray(images))))
    guesses = [(run.classes[row.argmax()], float(row.max())) for row in probabilities]
    console = rich.console.Console()
    table = rich.table.Table("image", "guess", "confidence", title=f"{config.images.name} by {config.run}")
    for i, (guess, confidence) in enumerate(guesses[:SHOWN]):
        table.add_row(str(i), guess, f"{confidence:.1%}")
    console.print(table)
    if len(guesses) > SHOWN:
        console.print(f"... and {len(guesses) - SHOWN} more; --out FILE.csv writes all", highlight=False)
    if config.out is not None:
        with config.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "guess", "confidence"])
            writer.writerows((i, guess, f"{confidence:.6f}") for i, (guess, confidence) in enumerate(guesses))
    return guesses


def read_images(path: Path, example: tuple[int, ...], *, levels: float) -> np.ndarray:
    """Images (N, *example) float32 in [0, 1] from a file, with clear errors about shape and range."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    raw = _read_array(path)
    if np.issubdtype(raw.dtype, np.integer):
        images = raw.astype(np.float32) / levels
    elif np.issubdtype(raw.dtype, np.floating):
        images = raw.astype(np.float32)
    else:
        raise ValueError(f"{path}: images must be integers or floats, got {raw.dtype}.")
    entries = math.prod(example)
    fits = [example, example[:-1]] if example[-1] == 1 else [example]
    if not any(images.shape == shape or images.shape[1:] == shape for shape in fits):
        raise ValueError(f"{path}: expected images of shape {example}, one or many (N, ...), got {images.shape}.")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"{path}: expected values in [0, 1], got {images.min():g} to {images.max():g}. "
            "Divide floats by their largest value; for integers give --levels."
        )
    if not images.size:
        raise ValueError(f"{path}: holds no image.")
    return images.reshape(images.size // entries, *example)


def _read_array(path: Path) -> np.ndarray:
    """The array in a file, by its ending."""
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from None
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "x" not in arrays:
                raise ValueError(f'{path}: expected an array "x", got {", ".join(arrays) or "none"}.')
            return arrays["x"]
    if path.suffix == ".png":
        return _read_png(path)
    try:
        return read_idx(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected a .npy, .npz, .png or IDX file. {error}") from None


def _read_png(path: Path) -> np.ndarray:
    """The grey levels of a PNG in [0, 1], what is transparent laid on white paper."""
    try:
        image = matplotlib.image.imread(path)
    except (SyntaxError, OSError) as error:
        raise ValueError(f"{path} is not a readable PNG: {error}") from None
    if image.ndim == 2:
        return image
    grey = image[..., :3].mean(axis=-1) if image.shape[-1] > 2 else image[..., 0]
    opacity = image[..., -1] if image.shape[-1] in (2, 4) else np.ones_like(grey)
    return grey * opacity + (1 - opacity)
