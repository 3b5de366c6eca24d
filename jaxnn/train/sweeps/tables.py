"""Tables of columns, saved to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxnn.files import make_folder, write_csv, write_npz


def save_table(columns: Mapping[str, np.ndarray], path: str | Path) -> Path:
    """Write columns of one length to a file named *.csv or *.npz (for `np.load`), and return its path.

    The folder is created if necessary; the file is written atomically.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.suffix == ".npz":
        write_npz(path, columns, compressed=True)
    elif path.suffix == ".csv":
        write_csv(path, columns, zip(*(column.tolist() for column in columns.values()), strict=True))
    else:
        raise ValueError(f"a table's file name must end in .npz or .csv, got {path.name!r}.")
    return path
