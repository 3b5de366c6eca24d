"""The options of `jaxnn study` for studies of sequences."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from jaxnn import studies
from jaxnn.checks import require_between, require_positive_int
from jaxnn.cli.words import require_seed


@dataclasses.dataclass(frozen=True)
class SequencesConfig:
    """The options common to all studies of sequences; each subclass adds its own."""

    learning_rate: float = 3e-3
    """Learning rate of Adam, on gradients clipped to norm 1."""
    batch_size: int = 64
    """Sequences per step."""
    epochs: int = 10
    """Epochs, after each of which the networks are measured."""
    steps: int = 100
    """Steps of an epoch."""
    seed: int = 0
    """Seed of initial parameters and of the sequences."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty output folder; default runs/sequences-STUDY, numbered if it exists."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type == "int" and field.name != "seed":
                require_positive_int("study", field.name, getattr(self, field.name))
        require_seed("study", self.seed)
        require_between("study", "learning_rate", self.learning_rate, 0, math.inf, open_high=True)

    @property
    def title(self) -> str:
        """What the study is of, the beginning of its folder's name."""
        return "sequences"

    def run(self, module: ModuleType, folder: Path) -> Any:
        """The result of the study, saved in the folder in between."""
        return module.run(folder=folder, **self.settings())

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the study's `run`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "out"}


@dataclasses.dataclass(frozen=True)
class VanishingConfig(SequencesConfig):
    """Gradients through time of recurrent layers, before and after training on the adding problem."""

    length: int = 50
    """Positions of a sequence."""
    hidden: int = 32
    """Units of each recurrent layer."""


@dataclasses.dataclass(frozen=True)
class InductionConfig(SequencesConfig):
    """Induction heads: attention-only networks of one and two layers on a random sequence that repeats."""

    epochs: int = 30
    """Epochs, after each of which the heads are measured."""
    steps: int = 10
    """Steps of an epoch."""
    symbols: int = 32
    """Vocabulary."""
    length: int = 16
    """Longest period of the sequence, at most `symbols`; there are twice as many positions."""
    width: int = 64
    """Features of a position."""
    heads: int = 4
    """Heads of each layer."""


@dataclasses.dataclass(frozen=True)
class TasksConfig(SequencesConfig):
    """Which of five networks learns which of six synthetic tasks, in one short run each."""

    learning_rate: float = 5e-3
    """Learning rate of Adam, on gradients clipped to norm 1."""
    batch_size: int = 32
    """Sequences per step."""
    epochs: int = 6
    """Epochs, after each of which the networks are measured."""
    width: int = 32
    """Features of a position, units of each layer."""
    tasks: tuple[str, ...] = tuple(studies.tasks.TASKS)
    """Names of tasks."""
    networks: tuple[str, ...] = tuple(studies.tasks.NETWORKS)
    """Names of networks."""
