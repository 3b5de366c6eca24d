"""The command line: `jaxnn train | predict | compare | study | playground | gallery`."""

from typing import TYPE_CHECKING

from jaxnn import missing

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
