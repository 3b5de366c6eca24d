"""Tables of columns, written to files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def save_table(columns: Mapping[str, np.ndarray], path: str | Path) -> Path:
    """Write columns of one length: to a CSV file if the name ends in .csv, else to an .npz file that `np.load` opens.

    Its folder is made if need be.

    Raises:
        ValueError: another suffix.

    Example:
        >>> import tempfile
        >>> path = save_table({"epoch": np.arange(3)}, Path(tempfile.mkdtemp()) / "table.npz")
        >>> np.load(path)["epoch"]
        array([0, 1, 2])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        arrays: dict[str, Any] = dict(columns)
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    else:
        raise ValueError(f"a table's file name must end in .npz or .csv, got {path.name!r}.")
    return path
