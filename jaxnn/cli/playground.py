"""`jaxnn playground`: a small network on points of the plane, its training as a page, an image and an animation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxnn import files, plots
from jaxnn.checks import count_of
from jaxnn.cli.runs import run_folder, wide_console, write_options
from jaxnn.cli.words import LISTED, require_seed
from jaxnn.compare.entries import words
from jaxnn.playground import Settings, draw, make_views, render, run, write_gif
from jaxnn.playground.features import FEATURES
from jaxnn.playground.penalties import Regularization

DEFAULTS = Settings()


def fraction(text: str) -> float:
    """A fraction from `0.25`, `25%` or `25`: with a percent sign, or from 1 on, the number is a percentage.

    Example:
        >>> fraction("0.25"), fraction("25%"), fraction("25"), fraction("0.5%")
        (0.25, 0.25, 0.25, 0.005)
    """
    number = float(text.removesuffix("%"))  # a ValueError is tyro's to tell
    return number / 100 if text.endswith("%") or abs(number) >= 1 else number


FRACTION = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="0.25|25%",
    instance_from_str=lambda words: fraction(words[0]),
    is_instance=lambda value: isinstance(value, float),
    str_from_instance=lambda value: [f"{100 * value:g}%"],
)
"""An option that is a fraction or a percentage."""


@dataclasses.dataclass(frozen=True)
class PlaygroundConfig:
    """Train a small network on points of the plane, and write a page that shows every unit and trains on."""

    data: Literal["circle", "xor", "gauss", "spiral", "reg-plane", "reg-gauss"] = "circle"
    """Data set; reg-plane and reg-gauss are regression, the others classification."""
    features: Annotated[str, LISTED, tyro.conf.arg(metavar="A,B,..")] = ",".join(DEFAULTS.features)
    """Inputs of the network, separated by commas or blanks, of: x, y, x2 (x squared), y2, xy, sinx, siny; or of: x1, x2
    (the coordinates), x1^2, x2^2, x1x2, sinx1, sinx2."""
    hidden: Annotated[str, LISTED, tyro.conf.arg(metavar="N,N,..")] = ",".join(map(str, DEFAULTS.hidden))
    """Units of each hidden layer, separated by commas or blanks; at most 6 layers of 8; "" for none."""
    activation: Literal["relu", "tanh", "sigmoid", "linear"] = "tanh"
    """Activation of the hidden units."""
    learning_rate: float = DEFAULTS.learning_rate
    """Learning rate of gradient descent, > 0."""
    batch_size: int = DEFAULTS.batch_size
    """Examples per step."""
    noise: Annotated[float, FRACTION] = DEFAULTS.noise
    """Noise of the data, 0 to 50%: as a fraction (0.25) or in percent (25% or 25; numbers from 1 on are percent)."""
    train_ratio: Annotated[float, FRACTION] = DEFAULTS.train_ratio
    """Training points, 10% to 90%, in the same units (0.5, 50% or 50); the others are the test set."""
    regularization: Regularization = DEFAULTS.regularization
    """Penalty on the weights; a weight that l1 moves across 0 stays 0."""
    regularization_rate: float = DEFAULTS.regularization_rate
    """Strength of the penalty l1 or l2."""
    epochs: int = DEFAULTS.epochs
    """Passes through the training points."""
    seed: int = DEFAULTS.seed
    """Seed of points, split, initial weights and order."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty output folder; default runs/playground-DATA, numbered if it exists."""

    def __post_init__(self) -> None:
        require_seed("playground", self.seed)

    def without_effect(self, given: Collection[str]) -> list[str]:
        """The options without effect: an activation without hidden units, a penalty of strength 0."""
        found = []
        if "activation" in given and not words(self.hidden):
            found.append("--activation (there are no hidden units)")
        if self.regularization != "none" and not self.regularization_rate:
            found.append(f"--regularization {self.regularization} (its --regularization-rate is 0)")
        return found

    def settings(self) -> Settings:
        """The settings of `jaxnn.playground.run`."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)}
        return Settings(**told | {"features": tuple(words(self.features)), "hidden": _units(self.hidden)})


def playground(config: PlaygroundConfig) -> Path:
    """Train, write playground.html, last.png, training.gif and the numbers; return the folder."""
    settings = config.settings()
    start = time.perf_counter()
    with run_folder(config.out, f"playground-{settings.data}") as folder:
        done = run(settings)
        seconds = time.perf_counter() - start
        views = make_views(done)
        write_options(folder, config)
        files.write_json(folder / "result.json", done.numbers())
        page = files.write_text(folder / "playground.html", render(done, views))
        plots.save(draw(done, views), folder / "last.png")
        write_gif(done, views, folder / "training.gif")
    console = wide_console()
    for line in (
        f"trained on {', '.join(FEATURES[name].label for name in settings.features)} "
        f"for {count_of(settings.epochs, 'epoch')} in {seconds:.1f} s: "
        f"training loss {done.train_loss[-1]:.4f}, test loss {done.test_loss[-1]:.4f}",
        f"open in a browser: {page}",
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return folder


def _units(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise ValueError(f"playground: hidden must be integers separated by commas, got {text!r}.") from None
