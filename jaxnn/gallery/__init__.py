"""Figures of the library, each with its caption, equation and primary source; `jaxnn.gallery.build` writes them."""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.gallery.base import Picture

__all__ = ["Picture"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
