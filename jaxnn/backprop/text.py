"""Tables as text."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 120


class Printable:
    """Base of objects with a table: `print` shows it as plain text, `rich.print` with colour."""

    def __rich__(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        return str(self)


def as_text(table: Any) -> str:
    """A rich table as plain text, without trailing spaces."""
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").splitlines())
