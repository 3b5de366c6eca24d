"""Data sets by name: digits (in the package), MNIST and Fashion-MNIST (folder, cache or mirror)."""

from __future__ import annotations

import functools
import http.client
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from jaxnn.data.dataset import Dataset, Splits, TrainTest, make_dataset, split
from jaxnn.data.idx import read_idx
from jaxnn.files import UnwrittenError, make_folder, write_bytes
from jaxnn.npz import read_npz

DATA_VARIABLE = "JAXNN_DATA"
"""The environment variable that names the folder of data folders: `$JAXNN_DATA/mnist`, `$JAXNN_DATA/fashion-mnist`."""

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The four files of MNIST and of Fashion-MNIST, each also found with ".gz" appended."""

DIGITS_SPLIT = (1257, 270, 270)
"""Train, validation and test examples of `load("digits")`: 70%, 15%, 15% of 1,797, stratified."""

VALIDATION = 10_000
"""Examples of the 60,000 for training that `load` holds out for validation."""

_TIMEOUT = 30.0  # seconds to wait for a mirror
_LARGEST = 1 << 26  # bytes of a downloaded file; the largest of the eight has 27 million


class Source(NamedTuple):
    """Files, mirrors and checksums of a data set; the defaults are those of four IDX files."""

    name: str
    mirrors: tuple[str, ...]
    sha256: tuple[str, ...]  # of the uncompressed files, in their order
    classes: tuple[str, ...] = ()
    files: tuple[str, ...] = FILES
    suffix: str = ".gz"  # of the files on the mirrors
    read: Callable[..., Any] = read_idx  # (path or bytes, *, sha256), raises ValueError for a damaged file


MNIST = Source(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    tuple("0123456789"),
)

FASHION_MNIST = Source(
    "fashion-mnist",
    (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def digits() -> Dataset:
    """All 1,797 UCI handwritten digits, 8 x 8 pixels, shipped inside the package; `load("digits")` splits them.

    Returns:
        x (1797, 8, 8, 1) float32, grey level / 16, in [0, 1]; y (1797,) int32, 0 .. 9. Source and licence (CC BY 4.0)
        are in `digits.txt` beside the file.

    Example:
        >>> digits().x.shape
        (1797, 8, 8, 1)

    Reference: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
        https://doi.org/10.24432/C50P49 (its test set).
    """
    with resources.files("jaxnn.data").joinpath("digits.npz").open("rb") as stream:
        arrays = read_npz(stream, names=("images", "labels"))
    images, labels = arrays["images"], arrays["labels"]
    return make_dataset(images[..., None], labels, levels=16, name="digits", classes=tuple("0123456789"))


def mnist(folder: str | os.PathLike[str] | None = None) -> TrainTest:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

    The four files (gzip or raw) are read from `folder`, or, if it is None, from the first that has them all:
    `$JAXNN_DATA/mnist`, `~/.cache/jaxnn/mnist`, a public mirror (then cached). Each is checked against its SHA-256.

    Args:
        folder: of the four files; None for the places above.

    Returns:
        (train, test): x (N, 28, 28, 1) float32, grey level / 255, in [0, 1]; y (N,) int32, 0 .. 9. Hold out a
        validation set with `split(train, (50_000, 10_000), seed=0)`.

    Raises:
        FileNotFoundError: `folder` lacks a file, or none was found or could be downloaded; the message says which files
            to put where.
        ValueError: a file that was found is damaged.
        UnwrittenError: the cache could not be written.

    Example:
        >>> train, test = mnist()  # doctest: +SKIP

    Reference: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition", section
        III.
    """
    return _read(MNIST, folder)


def fashion_mnist(folder: str | os.PathLike[str] | None = None) -> TrainTest:
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 pixels, 10 classes.

    Args:
        folder: of the four files; None for the places of `mnist`, under the name fashion-mnist.

    Returns:
        (train, test), arrays as in `mnist`.

    Example:
        >>> train, test = fashion_mnist()  # doctest: +SKIP

    Reference: Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms".
    """
    return _read(FASHION_MNIST, folder)


def load(name: str, *, folder: str | os.PathLike[str] | None = None, seed: int = 0) -> Splits:
    """A data set by name, with a validation set held out by seed, stratified by class.

    digits: 1,257 / 270 / 270 of the 1,797 images; the seed determines every part, the test set too. mnist and
    fashion-mnist: 10,000 of the 60,000 training images are the validation set; the test set is the published one.

    Args:
        name: "digits", "mnist" or "fashion-mnist".
        folder: as for `mnist`; ignored for "digits".
        seed: of the split; the results in benchmarks/README.md use 0.

    Returns:
        Splits(train, validation, test).

    Raises:
        ValueError: an unknown name.
        FileNotFoundError, ValueError, UnwrittenError: as `mnist`.

    Example:
        >>> [len(part) for part in load("digits")]
        [1257, 270, 270]
    """
    if name == "digits":
        train, validation, test = split(digits(), DIGITS_SPLIT, seed=seed, stratify=True)
        return Splits(train, validation, test)
    sources = {source.name: source for source in (MNIST, FASHION_MNIST)}
    if name not in sources:
        raise ValueError(f"load: name must be one of {', '.join(('digits', *sources))}, got {name!r}.")
    whole, test = _read(sources[name], folder)
    train, validation = split(whole, (len(whole) - VALIDATION, VALIDATION), seed=seed, stratify=True)
    return Splits(train, validation, test)


def cache_folder(name: str) -> Path:
    """The cache of a data set's downloads: ~/.cache/jaxnn/<name>."""
    return Path.home() / ".cache" / "jaxnn" / name


def local_folder(source: Source) -> Path | None:
    """The first of `$JAXNN_DATA/<name>` and the cache with all files, or None; nothing is downloaded."""
    named = [Path(os.environ[DATA_VARIABLE]) / source.name] if os.environ.get(DATA_VARIABLE) else []
    candidates = (*named, cache_folder(source.name))
    return next((folder for folder in candidates if all(file_in(folder, file) for file in source.files)), None)


def download(source: Source, folder: Path) -> None:
    """Download the files of a data set into `folder`, each checked and then written atomically.

    Existing files are kept.

    Args:
        source: `sources.MNIST`, `sources.FASHION_MNIST`, ...; a mirror that fails or sends a wrong file is followed by
            the next.
        folder: created if it does not exist.

    Raises:
        FileNotFoundError: a file that no mirror sends; the message gives each mirror's cause and the remedy.
        UnwrittenError: a downloaded file could not be written.

    Example:
        >>> download(MNIST, cache_folder("mnist"))  # doctest: +SKIP
    """
    for file, sha256 in zip(source.files, source.sha256, strict=True):
        if file_in(folder, file) is not None:
            continue
        failures, sent = [], f"{file}{source.suffix}"
        for mirror in source.mirrors:
            try:
                _fetch(f"{mirror}{sent}", folder / sent, functools.partial(source.read, sha256=sha256))
                break
            except UnwrittenError:  # not the mirror's fault
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"{mirror}{sent}: {error}")
        else:
            these = f"the file{'s' if len(source.files) > 1 else ''} {', '.join(source.files)}"
            raise FileNotFoundError(
                f"{source.name}: {sent} was not found and could not be downloaded ({'; '.join(failures)}). "
                f"Put {these} (with or without .gz), from {' or '.join(source.mirrors)}, into "
                f"{cache_folder(source.name)}, or into a folder D/{source.name} and set {DATA_VARIABLE}=D."
            )


def _fetch(url: str, path: Path, read: Callable[[bytes], Any]) -> None:
    """Download one file, check it, write it atomically."""
    with urlopen(url, timeout=_TIMEOUT) as response:
        content = response.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it sends more than {_LARGEST} bytes, more than any of the files has")
    read(content)  # its checks
    make_folder(path.parent)
    write_bytes(path, content)


def file_in(folder: Path, name: str) -> Path | None:
    """The file in the folder, gzip or raw, or None."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def locate(source: Source, folder: str | os.PathLike[str] | None) -> Path:
    """`folder` if given, else the first default place with all files, else the cache, filled from a mirror."""
    if folder is not None:
        missing = [file for file in source.files if not file_in(Path(folder), file)]
        if missing:
            raise FileNotFoundError(
                f"{source.name}: {folder} lacks {', '.join(missing)} (plain or .gz). Name the folder that holds "
                "the data set, or omit it to search the default places."
            )
        return Path(folder)
    if (found := local_folder(source)) is not None:
        return found
    cache = cache_folder(source.name)
    download(source, cache)
    return cache


def _read(source: Source, folder: str | os.PathLike[str] | None) -> TrainTest:
    """The checked files as two Datasets."""
    place = locate(source, folder)
    arrays = [
        read_idx(file_in(place, file) or place / file, sha256=sha256)
        for file, sha256 in zip(FILES, source.sha256, strict=True)
    ]
    train, test = (
        make_dataset(images[..., None], labels, levels=255, name=source.name, classes=source.classes)
        for images, labels in ((arrays[0], arrays[1]), (arrays[2], arrays[3]))
    )
    return TrainTest(train, test)
