"""Data sets (digits, MNIST, Fashion-MNIST, toys, series, texts, tasks), splits, minibatches, augmentation.

Training takes a data set, `(x, y)` or a `Dataset`, whose examples are permuted in each epoch, or a `Draws`, whose
examples are drawn in each step: windows of a text (`text.windows`), synthetic tasks on sequences (`tasks`), or a
stream of your own. Examples that do not fit into the memory of a device are read batch by batch: `memmap`, or any
iterable of batches.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.data import augment, series, tasks, text, toy, warp
from jaxnn.data.dataset import Dataset, Splits, TrainTest, make_dataset, select, split
from jaxnn.data.draws import Draws
from jaxnn.data.idx import read_idx, write_idx
from jaxnn.data.ink import binarised
from jaxnn.data.memmap import Memmap, memmap
from jaxnn.data.minibatch import Partial, batch_indices, take
from jaxnn.data.sources import digits, download, fashion_mnist, load, mnist

__all__ = [
    "Dataset",
    "Draws",
    "Memmap",
    "Partial",
    "Splits",
    "TrainTest",
    "augment",
    "batch_indices",
    "binarised",
    "digits",
    "download",
    "fashion_mnist",
    "load",
    "make_dataset",
    "memmap",
    "mnist",
    "read_idx",
    "select",
    "series",
    "split",
    "take",
    "tasks",
    "text",
    "toy",
    "warp",
    "write_idx",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
