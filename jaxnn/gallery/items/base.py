"""The type of an entry of the table of concepts."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Item:
    """One concept, where it is, and how to run it.

    Attributes:
        concept: a noun phrase.
        where: public names below `jaxnn`, separated by ", ", such as "activations.relu, layers.Relu".
        run: lines of `>>>` with the values they print; "" for the example in the docstring of the first name. Modules
            of `jaxnn` and of `jaxnn.classic`, `jax`, `jnp` and `np` are imported for them.
        figure: the name of a figure of the gallery: `jaxnn gallery --only NAME`.
        command: of the command line, beginning with "jaxnn ".

    Raises:
        ValueError: nothing to run, lines that belong to no name, or a command of another program.
    """

    concept: str
    where: str = ""
    run: str = ""
    figure: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if not (self.where or self.figure or self.command):
            raise ValueError(f"Item {self.concept!r}: expected a name, a figure or a command, got none.")
        if self.run and not self.where:
            raise ValueError(f"Item {self.concept!r}: `run` needs the names that it uses in `where`.")
        if self.command and not self.command.startswith("jaxnn "):
            raise ValueError(f"Item {self.concept!r}: command must begin with 'jaxnn ', got {self.command!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The public names of `where`, one by one."""
        return tuple(self.where.split(", ")) if self.where else ()
