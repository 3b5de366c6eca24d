"""`jaxnn study`: a study of per-example gradients or of sequences, its figures and numbers in a run folder."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from jaxnn import data, files, models, optim, plots, studies
from jaxnn.checks import require_between, require_positive_int
from jaxnn.cli.runs import CONFIG, read_options, wide_console, write_options
from jaxnn.cli.sequence_studies import InductionConfig, SequencesConfig, TasksConfig, VanishingConfig
from jaxnn.cli.training import CHECKPOINTS, RESULT, require_resumable, training_folder
from jaxnn.cli.words import require_seed
from jaxnn.layers import Layer


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The options common to all studies of per-example gradients; each subclass adds its own."""

    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """Data set: digits (8x8, included), mnist or fashion-mnist (28x28; found locally, or downloaded once)."""
    examples: int | None = None
    """Number of training examples, the first of the training split; default all."""
    hidden: tuple[int, ...] = (128,)
    """Units of the hidden layers."""
    learning_rate: float = 3e-3
    """Learning rate of Adam."""
    batch_size: int = 64
    """Examples per step."""
    epochs: int = 10
    """Passes through the training examples."""
    seed: int = 0
    """Seed of initial parameters, order, and all other randomness."""
    folder: Path | None = None
    """Folder of the four IDX files (mnist, fashion-mnist); default $JAXNN_DATA, then the cache, then download."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty output folder; default runs/DATA-STUDY, numbered if it exists."""

    def __post_init__(self) -> None:
        require_positive_int("study", "batch_size", self.batch_size)
        require_positive_int("study", "epochs", self.epochs)
        require_seed("study", self.seed)
        require_between("study", "learning_rate", self.learning_rate, 0, math.inf, open_high=True)
        if self.examples is not None:
            require_positive_int("study", "examples", self.examples)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options without effect: --folder with the digits."""
        unused = "folder" in given and self.data == "digits"
        return ["--folder (the digits are included in the package)"] if unused else []

    @property
    def title(self) -> str:
        """What the study is of, the beginning of its folder's name."""
        return self.data

    def run(self, module: ModuleType, folder: Path) -> Any:
        """The result of the study on the images, saved in the folder in between."""
        splits = data.load(self.data, folder=self.folder)
        if self.examples is not None:
            splits = splits._replace(train=data.select(splits.train, slice(0, self.examples)))
        if self.batch_size > len(splits.train):
            raise ValueError(f"study: batch_size {self.batch_size} exceeds the {len(splits.train)} training examples.")
        return module.run(splits, net=_network(self, splits.train), folder=folder, **self.settings())

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the study's `run`, besides the network."""
        common = {"seed": self.seed, "epochs": self.epochs, "batch_size": self.batch_size}
        return common | {"opt": optim.adam(self.learning_rate)}


@dataclasses.dataclass(frozen=True)
class NormsConfig(StudyConfig):
    """Per-example gradient norms during training."""

    epochs: int = 30
    """Passes through the training examples."""


@dataclasses.dataclass(frozen=True)
class HardestConfig(StudyConfig):
    """The training examples with the largest gradient norms."""


@dataclasses.dataclass(frozen=True)
class MislabeledConfig(StudyConfig):
    """Detection of artificially wrong labels by per-example gradient norms."""

    epochs: int = 15
    """Passes through the training examples."""
    fraction: float = 0.05
    """Fraction of labels that are made wrong."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones, and the fraction."""
        return super().settings() | {"fraction": self.fraction}


@dataclasses.dataclass(frozen=True)
class NoiseScaleConfig(StudyConfig):
    """The gradient noise scale against the batch size and during training."""

    sizes: tuple[int, ...] = studies.noise_scale.SIZES
    """Batch sizes for the estimate."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones, and the sizes."""
        return super().settings() | {"sizes": self.sizes}


@dataclasses.dataclass(frozen=True)
class ClippedConfig(StudyConfig):
    """Training on clipped and noisy gradients, by SGD with momentum 0.9: as DP-SGD, without a privacy guarantee."""

    learning_rate: float = 0.1
    """Learning rate of SGD with momentum 0.9."""
    epochs: int = 20
    """Passes through the training examples."""
    bound: float = 1.0
    """Clipping norm of per-example gradients."""
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """Noise multipliers, one run each: standard deviation of the noise on the sum of a batch, in units of the bound."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones with SGD, and bound and noise."""
        opt = optim.sgd(self.learning_rate, momentum=0.9)
        return super().settings() | {"opt": opt, "bound": self.bound, "noise": self.noise}


@dataclasses.dataclass(frozen=True)
class GramConfig(StudyConfig):
    """Cosines between per-example gradients, by class."""

    epochs: int = 2
    """Passes through the training examples."""
    per_class: int = 20
    """Examples of each class."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones, and the examples of each class."""
        return super().settings() | {"per_class": self.per_class}


@dataclasses.dataclass(frozen=True)
class InfluenceConfig(StudyConfig):
    """The training examples that helped and harmed the predictions on test examples, by plain SGD."""

    learning_rate: float = 0.02
    """Learning rate of plain SGD; the first-order error shrinks with it."""
    epochs: int = 30
    """Passes through the training examples."""
    tests: int = 6
    """Number of test examples, those with the largest loss."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones, the learning rate in place of an optimizer, the number of tests."""
        found = super().settings() | {"tests": self.tests, "learning_rate": self.learning_rate}
        return {name: value for name, value in found.items() if name != "opt"}


@dataclasses.dataclass(frozen=True)
class ProjectionsConfig(StudyConfig):
    """The nearest training examples of test examples by random projections of gradients, beside the exact ones."""

    epochs: int = 2
    """Passes through the training examples."""
    tests: int = 6
    """Number of test examples in the picture."""
    sizes: tuple[int, ...] = studies.projections.SIZES
    """Numbers of projections of each gradient."""

    def settings(self) -> dict[str, Any]:
        """The keyword arguments: the common ones, the number of tests and the sizes."""
        return super().settings() | {"tests": self.tests, "sizes": self.sizes}


class Study(NamedTuple):
    """A study's module, and its options."""

    module: ModuleType
    config: type[StudyConfig] | type[SequencesConfig]


STUDIES = {
    "norms": Study(studies.norms, NormsConfig),
    "hardest": Study(studies.hardest, HardestConfig),
    "mislabeled": Study(studies.mislabeled, MislabeledConfig),
    "noise-scale": Study(studies.noise_scale, NoiseScaleConfig),
    "clipped": Study(studies.clipped, ClippedConfig),
    "gram": Study(studies.gram, GramConfig),
    "influence": Study(studies.influence, InfluenceConfig),
    "projections": Study(studies.projections, ProjectionsConfig),
    "vanishing": Study(studies.vanishing, VanishingConfig),
    "induction": Study(studies.induction, InductionConfig),
    "tasks": Study(studies.tasks, TasksConfig),
}
"""The studies by their names on the command line."""


def resumed(name: str, folder: Path) -> Path:
    """`study` in the folder of one that was stopped, with its options."""
    require_resumable(folder, f"study {name}")
    whole = files.read_json(folder / CONFIG)
    if not isinstance(whole, dict) or whole.get("study") != name:
        raise ValueError(f"{folder / CONFIG} is not of a study {name}.")
    config = read_options(whole["options"], STUDIES[name].config)
    if (folder / RESULT).is_file() and not (folder / CHECKPOINTS).is_dir():
        raise FileExistsError(f"{folder} has ended: its results are in {folder / RESULT}.")
    return study(name, config, resume=folder)


def study(name: str, config: StudyConfig | SequencesConfig, *, resume: Path | None = None) -> Path:
    """Run a study, write its folder, print the result; return the folder."""
    module = STUDIES[name].module
    console = wide_console()
    begin = functools.partial(write_options, config=config, study=name)
    with training_folder(config.out, f"{config.title}-{name}", resume, begin, f"study {name}") as folder:
        found = config.run(module, folder=folder / CHECKPOINTS)
        files.write_json(folder / RESULT, found.numbers())
        for title, figure in module.draw(found).items():
            plots.save(figure, folder / f"{title}.png")
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    console.print(f"{config.title}: {found.describe()}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)
    return folder


def _network(config: StudyConfig, examples: data.Dataset) -> Layer:
    return models.mlp([math.prod(examples.x.shape[1:]), *config.hidden, len(examples.classes)])
