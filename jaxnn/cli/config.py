"""The options of `jaxnn train`, and the network, optimizer and loss that they define."""

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
from jaxnn.cli.precision import PRECISIONS, in_precision, scaled
from jaxnn.cli.words import LOGS, require_divisible, require_seed, save_interval
from jaxnn.layers import Layer
from jaxnn.train.loss import default_value_and_grad
from jaxnn.train.step import ValueAndGrad
from jaxnn.types import Array, Key, Loss, Params, ScalarOrSchedule

Augmentation = Literal["none", "shift", "affine", "distort", "flip"]

RATE, MOMENTUM = 3e-3, 0.9
MAX_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train an image classifier, and write the results into a run folder."""

    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """Data set: digits (8x8, included), mnist or fashion-mnist (28x28; found locally, or downloaded once)."""
    model: Literal["linear", "mlp", "cnn"] = "mlp"
    """Network."""
    hidden: tuple[int, ...] = (256, 128)
    """Units of the hidden dense layers (mlp, cnn)."""
    channels: tuple[int, ...] = (32, 64)
    """Output channels of the convolutions before each 2x2 max-pool (cnn)."""
    convolutions: int = 1
    """Convolutions before each pool (cnn)."""
    window: int = 3
    """Side of the convolution kernels (cnn)."""
    padding: Literal["VALID", "SAME"] = "VALID"
    """Padding of the convolutions (cnn)."""
    batch_norm: bool = False
    """Batch normalization after each convolution (cnn)."""
    dropout: float = 0.0
    """Fraction of hidden units dropped in training (mlp); of the inputs of each dense layer (cnn)."""
    input_dropout: float = 0.0
    """Fraction of inputs dropped in training (mlp)."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="RULE")] = "adam"
    """Optimizer of jaxnn.optim, by name; an unknown name lists all that can be used here."""
    optimizer_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the optimizer, e.g. b1=0.8,nesterov=true; an unknown name lists them."""
    learning_rate: float | None = None
    """Learning rate; the peak of the schedule. Default: the optimizer's own, or 3e-3 where it has none."""
    momentum: float = MOMENTUM
    """Momentum (sgd)."""
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    """Learning-rate schedule: constant; cosine to 0; or one cycle, up for 15% of the steps and down to nearly 0."""
    weight_decay: float = 0.0
    """Strength of the L2 penalty, strength times the sum of squares of the weights (biases are not penalized)."""
    label_smoothing: float = 0.0
    """Label smoothing: probability mass distributed uniformly over the classes."""
    batch_size: int = 64
    """Examples per step."""
    epochs: int = 30
    """Passes through the training data."""
    augment: Augmentation = "none"
    """Augmentation of the training images: shift; affine (shift, rotate, scale, shear); distort (affine and
    elastic); flip (mirrored with probability 1/2; not for digits)."""
    patience: int | None = None
    """Early stopping: epochs without improvement of the validation error; the best epoch is kept."""
    final: bool = False
    """Train on the training and validation splits together, after all choices are made. Nothing is held out for
    further choices, and only the test error is reported."""
    seeds: int = 1
    """Number of runs, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """The first seed, for initial parameters, order, dropout and augmentation."""
    folder: Path | None = None
    """Folder of the four IDX files (mnist, fashion-mnist); default $JAXNN_DATA, then the cache, then download."""
    precision: PRECISIONS = "float32"
    """Precision of the network in training, forward and backward; parameters, loss and optimizer are float32. float16
    scales the loss, and skips the steps whose gradients overflow."""
    devices: int = 1
    """Devices of this process that each batch is split over."""
    save_every: Annotated[str, tyro.conf.arg(metavar="STEPS|TIME")] = "60s"
    """Time between two checkpoints, such as 60s, 10m or 1h, or a number of steps; a kill costs at most that much.
    Checkpoints of a seed are deleted when it has ended."""
    log: LOGS = "none"
    """Where metrics go besides metrics.jsonl: tensorboard (event files in the run folder), wandb or trackio."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty output folder; default runs/DATA-MODEL, numbered if it exists."""

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
                raise ValueError(
                    "train: --patience needs a validation split, which --final trains on; omit one of them."
                )
        require_seed("train", self.seed, self.seeds)
        require_positive_int("train", "devices", self.devices)
        require_divisible(self.batch_size, self.devices)
        save_interval(self.save_every)
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
            raise ValueError("train: momentum is set by --momentum and by --optimizer-options; omit one of them.")
        return {"momentum": self.momentum} | options

    def rate(self) -> float | None:
        """The peak learning rate; None where the rule takes none, or adapts its own."""
        if not rules.takes(self.optimizer, rules.RATE):
            return None
        return self.learning_rate if self.learning_rate is not None else rules.own_rate(self.optimizer, RATE)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options on the command line that the chosen model, optimizer or data do not use, and why."""
        return unused_options(self, given)


OF_CONVOLUTIONS = ("convolutions", "window", "padding", "batch_norm")

USED_BY = dict.fromkeys(("channels", *OF_CONVOLUTIONS), ("cnn",)) | {
    "hidden": ("mlp", "cnn"), "dropout": ("mlp", "cnn"), "input_dropout": ("mlp",), "momentum": ("sgd",),
}  # fmt: skip
"""The options that only some models or optimizers use."""


def unused_options(config: TrainConfig, given: Collection[str] | None = None) -> list[str]:
    """The options among `given` (None: those that differ from their defaults) without effect, each with the reason."""
    if given is None:
        given = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    chosen = {config.model, config.optimizer}
    why = {name: f"of {', '.join(users)} only" for name, users in USED_BY.items() if not chosen & set(users)}
    if config.model == "mlp" and not config.hidden:
        why["dropout"] = "there are no hidden units"
    if config.model == "cnn" and not config.channels:
        why |= dict.fromkeys(OF_CONVOLUTIONS, "--channels is empty: there are no convolutions")
    if "momentum" not in why and any(word.split("=")[0].strip() == "momentum" for word in config.optimizer_options):
        why["momentum"] = "--optimizer-options sets it too"
    if config.data == "digits":
        why["folder"] = "the digits are included in the package"
    if not rules.takes(config.optimizer, rules.RATE):
        why["learning_rate"] = f"{config.optimizer} takes none"
    if config.rate() is None or (config.schedule != "constant" and not rules.takes_schedule(config.optimizer)):
        why["schedule"] = f"{config.optimizer} follows none"
    return [f"--{name.replace('_', '-')} ({reason})" for name, reason in why.items() if name in given]


def build_network(config: TrainConfig, example: tuple[int, ...], classes: int) -> Layer:
    """The network of a configuration, for examples of the given shape."""
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
    return scaled(config.precision, rule(**config.rule_options(), **({} if rate is None else {"learning_rate": rate})))


def build_schedule(config: TrainConfig, steps: int) -> ScalarOrSchedule | None:
    """The learning rate of each step; None for the rule's own."""
    rate = config.rate()
    if rate is None or config.schedule == "constant" or not rules.takes_schedule(config.optimizer):
        return rate
    if config.schedule == "cosine":
        return schedules.cosine_decay_schedule(rate, steps)
    return schedules.cosine_onecycle_schedule(steps, rate, pct_start=0.15)


def build_loss(config: TrainConfig) -> Loss:
    """Softmax cross-entropy, with or without label smoothing."""
    if not config.label_smoothing:
        return losses.softmax_cross_entropy
    return functools.partial(losses.softmax_cross_entropy, label_smoothing=config.label_smoothing)


def build_regularizer(config: TrainConfig) -> Callable[[Params], Array] | None:
    """The L2 penalty, if any."""
    return losses.l2(config.weight_decay) if config.weight_decay else None


def build_value_and_grad(config: TrainConfig, net: Layer) -> ValueAndGrad:
    """The mean loss with the penalty, and its gradient, in the precision of the configuration."""
    vg = default_value_and_grad(net, build_loss(config), build_regularizer(config))
    return in_precision(config.precision, vg)


def build_augmentation(config: TrainConfig) -> Callable[[Key, Array], Array] | None:
    """The augmentation of training images, None for "none"; shifts and distortions are smaller for the 8x8 digits."""
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
