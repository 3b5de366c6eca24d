"""The options of `jaxnn train --data text`, and the network and optimizer that they define."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from jaxnn import data, models, optim, schedules
from jaxnn.checks import require_between, require_positive_int
from jaxnn.cli import rules
from jaxnn.cli.precision import PRECISIONS, scaled
from jaxnn.cli.words import LOGS, require_divisible, require_seed, save_interval
from jaxnn.initializers import zeros
from jaxnn.layers import GRU, LSTM, Attention, Layer
from jaxnn.types import Params, ScalarOrSchedule

MUON = "muon"
"""The optimizer that is `optim.muon_with_roles` here: Muon for hidden matrices, Adam for the rest."""

ROTARY = 1000.0
"""Base of the rotary encoding: the paper's 10,000 is for windows of thousands of positions, not of a hundred."""

CONSTANT_PART = 0.4
"""Fraction of the steps before the linear schedule begins to fall."""

CELLS: dict[str, Callable[[int], Layer]] = {"lstm": LSTM, "gru": GRU}
"""The layers of the recurrent models."""

MAX_DEPTH = 1000


MODELS: TypeAlias = Literal["transformer", "lstm", "gru"]


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Train a language model on the characters of a text, and write the results into a run folder."""

    data: Literal["text"] = "text"
    """Data set: tiny-shakespeare where it is found ($JAXNN_DATA, the cache), else the text in the package."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A text file of your own (UTF-8) instead; its last tenth is for validation."""
    symbols: Literal["characters", "bytes"] = "characters"
    """Tokens: the characters that occur in the text, or bytes."""
    model: MODELS = "transformer"
    """Network."""
    width: int = 128
    """Features of a position; hidden units of a recurrent network."""
    depth: int = 4
    """Blocks, or recurrent layers."""
    heads: int = 4
    """Attention heads (transformer)."""
    length: int = 64
    """Characters of a training window."""
    dropout: float = 0.0
    """Fraction of the embeddings and of the outputs of each part dropped in training."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="RULE")] = MUON
    """muon (for hidden matrices, with Adam for the rest), or another optimizer of jaxnn.optim, by name."""
    optimizer_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the optimizer, e.g. b1=0.8; an unknown name lists them."""
    learning_rate: float | None = None
    """Learning rate; the peak of the schedule. Default: 0.02 (muon), else the optimizer's own, or 3e-3."""
    adam_learning_rate: float = 3e-3
    """Learning rate of embeddings, heads and vectors (muon)."""
    schedule: Literal["linear", "cosine", "onecycle", "constant"] = "linear"
    """Learning-rate schedule: constant for 40% of the steps, then linear to 0; cosine to 0; one cycle; constant."""
    weight_decay: float = 0.1
    """Decoupled weight decay of hidden matrices (muon), or of all parameters (rules with weight_decay)."""
    batch_size: int = 12
    """Windows per step."""
    steps: int = 100
    """Steps per epoch, each on windows drawn at random."""
    epochs: int = 10
    """Epochs; after each the validation loss is computed, and a sample drawn."""
    sample: int = 200
    """Characters of the sample after each epoch; 0 for none."""
    seeds: int = 1
    """Number of runs, with seeds seed, seed + 1, ..."""
    seed: int = 0
    """The first seed, for initial parameters, windows and dropout."""
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
    """New or empty output folder; default runs/text-MODEL, numbered if it exists."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "length", "batch_size", "steps", "epochs", "seeds"):
            require_positive_int("train", name, getattr(self, name))
        require_positive_int("train", "sample", self.sample, minimum=0)
        require_between("train", "dropout", self.dropout, 0, 1, open_high=True)
        for name in ("weight_decay", "adam_learning_rate"):
            require_between("train", name, getattr(self, name), 0, math.inf, open_high=True)
        if self.learning_rate is not None:
            require_between("train", "learning_rate", self.learning_rate, 0, math.inf, open_high=True)
        if self.model == "transformer" and self.width % (2 * self.heads):
            raise ValueError(
                f"train: width must be a multiple of twice the heads (rotary encoding takes pairs of features), got "
                f"width {self.width} and {self.heads} heads."
            )
        if self.depth > MAX_DEPTH:
            raise ValueError(f"train: depth must be at most {MAX_DEPTH}, got {self.depth}.")
        require_seed("train", self.seed, self.seeds)
        require_positive_int("train", "devices", self.devices)
        require_divisible(self.batch_size, self.devices)
        save_interval(self.save_every)
        self.rule_options()

    def rule_options(self) -> dict[str, Any]:
        """The rule's options as keyword arguments."""
        options = rules.parse_options(self.optimizer, self.optimizer_options)
        known = inspect.signature(optim.muon_with_roles).parameters
        if self.optimizer == MUON and (unknown := [name for name in options if name not in known]):
            raise ValueError(f"train: muon has no option {unknown[0]!r} here; there are: {', '.join(known)}.")
        if rules.takes(self.optimizer, "seed") and not {"seed", "key"} & set(options):
            options["seed"] = self.seed
        if "weight_decay" in options and self.weight_decay != WEIGHT_DECAY:
            raise ValueError(
                "train: weight_decay is set by --weight-decay and by --optimizer-options; omit one of them."
            )
        decays = rules.takes(self.optimizer, "weight_decay")
        return ({"weight_decay": self.weight_decay} if decays else {}) | options

    def rate(self) -> float | None:
        """The peak learning rate; None where the rule takes none, or adapts its own."""
        if self.learning_rate is not None or not rules.takes(self.optimizer, rules.RATE):
            return self.learning_rate
        return 0.02 if self.optimizer == MUON else rules.own_rate(self.optimizer, 3e-3)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options on the command line that the chosen model or optimizer do not use, and why."""
        why = {} if self.model == "transformer" else {"heads": "of transformer only"}
        if self.optimizer != MUON:
            why["adam_learning_rate"] = "of muon only"
        if not rules.takes(self.optimizer, "weight_decay"):
            why["weight_decay"] = f"{self.optimizer} has none"
        if not rules.takes(self.optimizer, rules.RATE):
            why["learning_rate"] = f"{self.optimizer} takes none"
        if self.rate() is None or (self.schedule != "constant" and not rules.takes_schedule(self.optimizer)):
            why["schedule"] = f"{self.optimizer} follows none"
        return [f"--{name.replace('_', '-')} ({reason})" for name, reason in why.items() if name in given]


WEIGHT_DECAY: float = TextConfig.weight_decay


def build_network(config: TextConfig, vocabulary: int) -> Layer:
    """The network of a configuration, tokens (N, T) -> logits (N, T, vocabulary)."""
    if config.model in CELLS:
        cell = CELLS[config.model]
        return models.recurrent(vocabulary, config.width, config.depth, cell, dropout=config.dropout)
    attention = Attention(config.heads, causal=True, rotary=ROTARY, qk_norm=True, out_init=zeros)
    return models.transformer(
        vocabulary, width=config.width, depth=config.depth, attention=attention, dropout=config.dropout
    )


def build_optimizer(config: TextConfig, net: Layer, steps: int) -> optim.Optimizer:
    """The optimizer, its learning rates scheduled over the steps of the whole run."""
    return scaled(config.precision, _rule(config, net, steps))


def _rule(config: TextConfig, net: Layer, steps: int) -> optim.Optimizer:
    rate = build_schedule(config, config.rate(), steps)
    if config.optimizer == MUON:

        def roles(params: Params) -> Any:
            return models.roles(net, params)

        rest = build_schedule(config, config.adam_learning_rate, steps)
        return optim.muon_with_roles(rate, roles, adam_learning_rate=rest, **{"adam_b2": 0.95} | config.rule_options())  # type: ignore[arg-type]
    rule = rules.require_rule(config.optimizer)
    return rule(**config.rule_options(), **({} if rate is None else {"learning_rate": rate}))


def build_schedule(config: TextConfig, peak: float | None, steps: int) -> ScalarOrSchedule | None:
    """The learning rate of each step; None for the rule's own."""
    if peak is None or config.schedule == "constant" or not rules.takes_schedule(config.optimizer):
        return peak
    if config.schedule == "linear":
        begin = int(CONSTANT_PART * steps)
        return schedules.linear_schedule(peak, 0.0, steps - begin, begin)
    if config.schedule == "cosine":
        return schedules.cosine_decay_schedule(peak, steps)
    return schedules.cosine_onecycle_schedule(steps, peak, pct_start=0.15)


def read_text(config: TextConfig) -> tuple[str, str]:
    """(name, text): the file, or tiny-shakespeare where it is found, or the text in the package."""
    if config.text is None:
        found = data.text.local_tiny_shakespeare()
        return ("tiny-shakespeare", found) if found is not None else ("Coriolanus", data.text.embedded())
    try:
        return config.text.name, config.text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{config.text} is not a UTF-8 text: {error.reason} at byte {error.start}.") from None
