"""What `jaxnn train` can be told, and what it builds from that."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxnn import data, losses, models, optim, schedules
from jaxnn.checks import require_between, require_positive_int
from jaxnn.cli import rules
from jaxnn.cli.words import require_seed
from jaxnn.layers import Layer
from jaxnn.types import Array, Key, Loss, Params, ScalarOrSchedule

Augmentation = Literal["none", "shift", "affine", "distort", "flip"]

RATE, MOMENTUM = 3e-3, 0.9
MAX_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a classifier of images, and write what came of it into a run folder."""

    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """Data set: digits (8x8, inside the package), mnist or fashion-mnist (28x28; found, or downloaded once)."""
    model: Literal["linear", "mlp", "cnn"] = "mlp"
    """Network."""
    hidden: tuple[int, ...] = (256, 128)
    """Units of the hidden dense layers (mlp, cnn)."""
    channels: tuple[int, ...] = (32, 64)
    """Output channels of the convolutions (cnn), each followed by a 2x2 max-pool."""
    convolutions: int = 1
    """Convolutions before each pool (cnn)."""
    window: int = 3
    """Side of the convolution kernels (cnn)."""
    padding: Literal["VALID", "SAME"] = "VALID"
    """Padding of the convolutions (cnn)."""
    batch_norm: bool = False
    """Batch normalization after each convolution (cnn)."""
    dropout: float = 0.0
    """Fraction of hidden units dropped in training."""
    input_dropout: float = 0.0
    """Fraction of inputs dropped in training (mlp)."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="RULE")] = "adam"
    """Rule of jaxnn.optim, by name; a wrong name lists all that can be used here."""
    optimizer_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the rule, such as b1=0.8,nesterov=true; a wrong name lists those that it has."""
    learning_rate: float | None = None
    """Learning rate; the peak of the schedule. Default: the rule's own, or 3e-3 where it has none."""
    momentum: float = MOMENTUM
    """Momentum (sgd)."""
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    """Learning rate over the run: constant; half a cosine to 0; or up for 15% of the steps and down to nearly 0."""
    weight_decay: float = 0.0
    """Strength of the L2 penalty on weights, not biases."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over the classes."""
    batch_size: int = 64
    """Examples in each step."""
    epochs: int = 30
    """Passes through the training data."""
    augment: Augmentation = "none"
    """Random change of the training images: shift; affine (shift, rotate, scale, shear); distort (affine and
    elastic); flip (mirrored half of the time; not for digits)."""
    patience: int | None = None
    """Stop when the validation error has not improved for so many epochs, and keep the best."""
    final: bool = False
    """Train on the training and validation splits together, once every choice is made; nothing is then held out to
    choose by, and only the test error is reported."""
    seeds: int = 1
    """How many runs, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """The first seed: initial parameters, order, dropout and augmentation follow from it."""
    folder: Path | None = None
    """Folder of the four IDX files (mnist, fashion-mnist); default $JAXNN_DATA, then the cache, then download."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty folder to write; default runs/DATA-MODEL, numbered if it is taken."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "seeds", "window", "convolutions"):
            require_positive_int("train", name, getattr(self, name))
        for name in ("dropout", "input_dropout", "label_smoothing", "momentum"):
            require_between("train", name, getattr(self, name), 0, 1, open_high=True)
        if self.learning_rate is not None:
            require_between("train", "learning_rate", self.learning_rate, 0, math.inf, open_high=True)
        require_between("train", "weight_decay", self.weight_decay, 0, math.inf, open_high=True)
        if self.patience is not None:
            require_positive_int("train", "patience", self.patience)
            if self.final:
                raise ValueError("train: --patience needs a validation split, which --final trains on; leave out one.")
        require_seed("train", self.seed, self.seeds)
        layers = len(self.channels) * self.convolutions + len(self.hidden)
        if layers > MAX_LAYERS:
            raise ValueError(f"train: channels, convolutions and hidden make {layers} layers, at most {MAX_LAYERS}.")
        self.rule_options()

    def rule_options(self) -> dict[str, Any]:
        """The rule's options as keyword arguments: --optimizer-options, sgd's momentum, the seed of noise."""
        options = rules.parse_options(self.optimizer, self.optimizer_options)
        if rules.takes(self.optimizer, "seed") and not {"seed", "key"} & set(options):
            options["seed"] = self.seed
        if self.optimizer != "sgd":
            return options
        if "momentum" in options and self.momentum != MOMENTUM:
            raise ValueError("train: momentum is given by --momentum and by --optimizer-options; leave out one.")
        return {"momentum": self.momentum} | options

    def rate(self) -> float | None:
        """The learning rate at its peak; None where the rule takes none, or finds its own."""
        if not rules.takes(self.optimizer, rules.RATE):
            return None
        return self.learning_rate if self.learning_rate is not None else rules.own_rate(self.optimizer, RATE)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options given on the command line that the chosen model, optimizer or data do not use, and why."""
        return unused_options(self, given)


OF_CONVOLUTIONS = ("convolutions", "window", "padding", "batch_norm")

USED_BY = dict.fromkeys(("channels", *OF_CONVOLUTIONS), ("cnn",)) | {
    "hidden": ("mlp", "cnn"), "dropout": ("mlp", "cnn"), "input_dropout": ("mlp",), "momentum": ("sgd",),
}  # fmt: skip
"""The options that only some models or optimizers use."""


def unused_options(config: TrainConfig, given: Collection[str] | None = None) -> list[str]:
    """Options that the chosen model, optimizer or data do not use, of those that are given.

    Args:
        config: the configuration.
        given: names of fields; None for those that differ from their defaults.
    """
    if given is None:
        given = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    chosen = {config.model, config.optimizer}
    why = {name: f"of {', '.join(users)} only" for name, users in USED_BY.items() if not chosen & set(users)}
    if config.model == "mlp" and not config.hidden:
        why["dropout"] = "of hidden units, and there are none"
    if config.model == "cnn" and not config.channels:
        why |= dict.fromkeys(OF_CONVOLUTIONS, "of convolutions, and --channels names none")
    if "momentum" not in why and any(word.split("=")[0].strip() == "momentum" for word in config.optimizer_options):
        why["momentum"] = "--optimizer-options give it too"
    if config.data == "digits":
        why["folder"] = "the digits are inside the package"
    if not rules.takes(config.optimizer, rules.RATE):
        why["learning_rate"] = f"{config.optimizer} takes none"
    if config.rate() is None or (config.schedule != "constant" and not rules.takes_schedule(config.optimizer)):
        why["schedule"] = f"{config.optimizer} follows none"
    return [f"--{name.replace('_', '-')} ({reason})" for name, reason in why.items() if name in given]


def build_network(config: TrainConfig, example: tuple[int, ...], classes: int) -> Layer:
    """The network that a configuration names, for examples of a shape."""
    if config.model == "linear":
        return models.linear(classes)
    if config.model == "mlp":
        sizes = [math.prod(example), *config.hidden, classes]
        return models.mlp(sizes, dropout=config.dropout, input_dropout=config.input_dropout)
    return models.cnn(
        config.channels,
        config.hidden,
        classes,
        window=config.window,
        convolutions=config.convolutions,
        padding=config.padding,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
    )


def build_optimizer(config: TrainConfig, steps: int) -> optim.Optimizer:
    """The optimizer, its learning rate scheduled over the steps of the whole run."""
    rule = rules.require_rule(config.optimizer)
    rate = build_schedule(config, steps)
    return rule(**config.rule_options(), **({} if rate is None else {"learning_rate": rate}))


def build_schedule(config: TrainConfig, steps: int) -> ScalarOrSchedule | None:
    """The learning rate of each step; None for the rule's own."""
    rate = config.rate()
    if rate is None or config.schedule == "constant" or not rules.takes_schedule(config.optimizer):
        return rate
    if config.schedule == "cosine":
        return schedules.cosine_decay_schedule(rate, steps)
    return schedules.cosine_onecycle_schedule(steps, rate, pct_start=0.15)


def build_loss(config: TrainConfig) -> Loss:
    """Softmax cross-entropy, smoothed or not."""
    if not config.label_smoothing:
        return losses.softmax_cross_entropy
    return functools.partial(losses.softmax_cross_entropy, label_smoothing=config.label_smoothing)


def build_regularizer(config: TrainConfig) -> Callable[[Params], Array] | None:
    """The L2 penalty, if any."""
    return losses.l2(config.weight_decay) if config.weight_decay else None


def build_augmentation(config: TrainConfig) -> Callable[[Key, Array], Array] | None:
    """The random change of training images; strengths are for 28x28 (8x8 digits move by one pixel)."""
    small = config.data == "digits"
    pixels = 1 if small else 2
    augment: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "shift": lambda: data.augment.shift(pixels),
        "affine": lambda: data.augment.affine(max_degrees=10.0, max_factor=1.1, max_shear=0.1, max_pixels=pixels),
        "distort": lambda: data.augment.distort(
            8.0 if small else 30.0, 4.0, max_degrees=10.0, max_factor=1.1, max_shear=0.1, max_pixels=pixels
        ),
        "flip": data.augment.flip,
    }
    return augment[config.augment]()
