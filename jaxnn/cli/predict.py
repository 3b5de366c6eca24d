"""`jaxnn predict`: a finished run applied to images."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import rich.table
import tyro
from PIL import Image
from rich.markup import escape

from jaxnn import files, npz
from jaxnn.activations import softmax
from jaxnn.checks import require_positive
from jaxnn.cli.runs import CONFIG, read_run, wide_console
from jaxnn.cli.text.predict import is_text_run
from jaxnn.data import read_idx
from jaxnn.train import make_outputs

SHOWN, LEVELS = 20, 255.0


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Classify images with a run that `jaxnn train` wrote."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """One or more images: a .npy file, an IDX file (also .gz), an .npz file with an array "x", or a .png."""
    levels: float | None = None
    """Maximum value of integer images (16 for the raw UCI digits), default 255. Floats must lie in [0, 1]; a PNG
    has its own."""
    invert: bool = False
    """Invert the grey levels: training images have ink 1 on paper 0, most scans the reverse."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None
    """New CSV file for all predictions; the table shows the first 20."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Overwrite an existing CSV file."""

    def __post_init__(self) -> None:
        if self.levels is not None:
            require_positive("predict", "levels", self.levels)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options without effect: --force without --out, as nothing is written."""
        return ["--force (there is no --out to overwrite)"] if "force" in given and self.out is None else []


def predict(config: PredictConfig) -> list[tuple[str, float]]:
    """Print the prediction and its confidence for each image; return all of them."""
    if config.out is not None:
        require_writable(config.out, inputs=[config.images, *_files_of(config.run)], force=config.force)
    _refuse_text(config.run)
    run = read_run(config.run)
    images = read_images(config.images, run.example, levels=config.levels)
    if config.invert:
        images = 1 - images
    probabilities = np.asarray(softmax(make_outputs(run.net)(run.params, run.state, jnp.asarray(images))))
    if not np.isfinite(probabilities).all():
        raise ValueError(
            f"{config.run}: the network's outputs overflow on {config.images}; its parameters are too large."
        )
    guesses = [(run.classes[row.argmax()], float(row.max())) for row in probabilities]
    console = wide_console()
    table = rich.table.Table("image", "guess", "confidence", title=escape(f"{config.images.name} by {config.run}"))
    for i, (guess, confidence) in enumerate(guesses[:SHOWN]):
        table.add_row(str(i), escape(guess), f"{confidence:.1%}")
    console.print(table)
    if len(guesses) > SHOWN:
        console.print(f"... and {len(guesses) - SHOWN} more; --out FILE.csv writes all", highlight=False)
    if config.out is not None:
        rows = ((i, guess, f"{confidence:.6f}") for i, (guess, confidence) in enumerate(guesses))
        files.write_csv(config.out, ["image", "guess", "confidence"], rows)
    return guesses


def _refuse_text(run: Path) -> None:
    """Raise ValueError for a language model, which takes no images."""
    if (run / CONFIG).is_file() and is_text_run(files.read_json(run / CONFIG)):
        raise ValueError(f'{run} is a language model, which continues a text: jaxnn predict {run} --prompt "...".')


def require_writable(out: Path, *, inputs: Iterable[Path], force: bool) -> None:
    """Raise OSError if `out` is an input of the command (under any name or link), is a folder, lies in a missing
    folder, or is an existing file and `force` is False.
    """
    with contextlib.suppress(FileNotFoundError):
        out.lstat()  # raises for invalid file names
    if out.is_dir():
        raise IsADirectoryError(f"--out {out} is a folder; name a file in it.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist.")
    if not out.exists():
        return
    for path in inputs:
        if path.exists() and out.samefile(path):
            raise FileExistsError(f"--out {out} is {path}, an input of this command; name another file.")
    if out.is_file() and not force:
        raise FileExistsError(f"--out {out} exists already; name a new file, or overwrite it with --force.")


def _files_of(run: Path) -> list[Path]:
    return sorted(run.iterdir()) if run.is_dir() else []


def read_images(path: Path, example: tuple[int, ...], *, levels: float | None) -> np.ndarray:
    """Images (N, *example) float32 in [0, 1] from a file, `example` the shape of one; ValueError for other contents."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    raw = _read_array(path, example)
    if np.issubdtype(raw.dtype, np.integer):
        images = raw.astype(np.float32) / np.float32(LEVELS if levels is None else levels)
    elif levels is None:
        images = raw.astype(np.float32)
    else:
        what = "a PNG, which has its own" if path.suffix == ".png" else f"{raw.dtype}, which must lie in [0, 1]"
        raise ValueError(f"--levels is without effect on {path}: it is for integers, and this is {what}. Omit it.")
    _require_shape(path, images.shape, example)
    _require_finite(path, images)
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"{path}: expected values in [0, 1], got {images.min():g} to {images.max():g}. "
            "Divide floats by their largest value; for integers pass --levels."
        )
    if not images.size:
        raise ValueError(f"{path}: holds no image.")
    return images.reshape(-1, *example)


def _require_finite(path: Path, images: np.ndarray) -> None:
    """Raise ValueError with count and first index if a value is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(images))
    if len(bad):
        first = tuple(map(int, bad[0]))
        raise ValueError(
            f"{path}: expected values in [0, 1], got {len(bad)} of {images.size} that are not finite, the first "
            f"{images[first]:g} at index {first}."
        )


def _require_shape(path: Path, shape: tuple[int, ...], example: tuple[int, ...]) -> None:
    """Raise ValueError unless an array of this shape holds one or more images."""
    fits = [example, example[:-1]] if example[-1] == 1 else [example]
    if not any(shape == each or shape[1:] == each for each in fits):
        raise ValueError(f"{path}: expected images of shape {example}, one or many (N, ...), got {shape}.")


def _read_array(path: Path, example: tuple[int, ...]) -> np.ndarray:
    """The array in a file, by its suffix; shape and dtype are checked before its values are read."""

    def check(header: npz.ArrayHeader) -> None:
        if header.dtype.kind not in "iuf":
            raise ValueError(f"{path}: images must be real numbers, got {header.dtype}.")
        _require_shape(path, header.shape, example)

    if path.suffix == ".npy":
        return npz.read_npy(path, check=check)
    if path.suffix == ".npz":
        return npz.read_npz(path, names=("x",), check=lambda headers: check(headers["x"]))["x"]
    if path.suffix == ".png":
        return _read_png(path, example)
    try:
        return read_idx(path, check=lambda shape: _require_shape(path, shape, example))
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: expected a .npy, .npz, .png or IDX file. {error}") from None


def _read_png(path: Path, example: tuple[int, ...]) -> np.ndarray:
    """The grey levels of a PNG in [0, 1], transparency on white; images of another size are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of decompression bombs
            with Image.open(path, formats=["PNG"]) as image:
                width, height = image.size
                if (height, width) != example[:2]:
                    raise _OtherSize
                image.verify()  # the checksums of all chunks, which decoding does not check
            with Image.open(path, formats=["PNG"]) as image:
                if image.mode.startswith("I"):  # 16 bits
                    return np.asarray(image).astype(np.float32) / np.float32(65535)
                pixels = np.asarray(image.convert("RGBA")).astype(np.float32) / np.float32(255)
    except _OtherSize:
        raise ValueError(f"{path}: expected an image of shape {example}, got {(height, width)}.") from None
    except Exception as error:
        # On damage Pillow raises SyntaxError, OSError, EOFError, zlib.error, struct.error, DecompressionBombError ...
        raise ValueError(f"{path} is not a readable PNG: {' '.join(str(error).split())}") from None
    opacity = pixels[..., 3]
    return pixels[..., :3].mean(axis=-1) * opacity + (1 - opacity)


class _OtherSize(Exception):
    """The image size differs from the network's."""
