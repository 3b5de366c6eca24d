"""`jaxnn predict RUN --prompt TEXT`: a finished language model continues a text."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxnn import data, files, models
from jaxnn.checks import require_between, require_positive_int
from jaxnn.cli.runs import CONFIG, PARAMS, read_options, read_params, wide_console
from jaxnn.cli.text.config import TextConfig, build_network
from jaxnn.cli.words import require_seed
from jaxnn.layers import Layer
from jaxnn.types import Params, State


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Continue a text with a run that `jaxnn train --data text` wrote."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    prompt: str
    """The text to continue; an empty one stands for the beginning of a line."""
    tokens: int = 500
    """Number of characters (or bytes) to add."""
    temperature: float = 0.8
    """Logits are divided by it; 0 takes the most probable character each time."""
    top_k: int | None = None
    """Draw among the k most probable ones only."""
    top_p: float | None = None
    """Draw among the fewest, most probable ones, whose probabilities sum to p (nucleus)."""
    count: int = 1
    """Number of continuations."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        require_positive_int("predict", "tokens", self.tokens)
        require_positive_int("predict", "count", self.count)
        require_between("predict", "temperature", self.temperature, 0, math.inf, open_high=True)
        if self.top_k is not None:
            require_positive_int("predict", "top_k", self.top_k)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"predict: top_p must lie in (0, 1], got {self.top_p:g}.")
        require_seed("predict", self.seed)


@dataclasses.dataclass(frozen=True)
class TextRun:
    """A finished run: its network with parameters, and its symbols."""

    config: TextConfig
    net: Layer
    params: Params
    state: State
    symbols: Any


def predict_text(config: PromptConfig) -> list[str]:
    """Print and return the continuations, each after its prompt."""
    run = read_text_run(config.run)
    prompt = config.prompt or ("\n" if _known(run.symbols, "\n") else run.symbols.decode(np.zeros(1, np.int32)))
    try:
        tokens = run.symbols.encode(prompt)
    except ValueError as error:
        raise ValueError(f"predict: the prompt has a character that the run does not know. {error}") from None
    settings: dict[str, Any] = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    draw = jax.jit(functools.partial(models.generate, run.net, count=config.tokens, **settings))
    prompts = jnp.broadcast_to(jnp.asarray(tokens)[None], (config.count, len(tokens)))
    found = np.asarray(draw(run.params, run.state, prompts, key=jax.random.key(config.seed)))
    texts = [run.symbols.decode(row) for row in found]
    console = wide_console()
    for i, text in enumerate(texts):
        if config.count > 1:
            console.print(f"--- {i} ---", highlight=False)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return texts


def _known(symbols: Any, character: str) -> bool:
    return symbols.size == 256 or character in symbols.symbols


def read_text_run(folder: Path) -> TextRun:
    """Read a run folder; every array is checked against the network of the configuration.

    Raises:
        FileNotFoundError: the folder lacks config.json or params.npz.
        ValueError: config.json is not the configuration of a language model, or the parameters do not fit it.
    """
    for name in (CONFIG, PARAMS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a finished run: it has no {name}. Make one with: jaxnn train")
    config, symbols = read_text_config(folder)
    try:
        net = build_network(config, symbols.size)
        example = jax.ShapeDtypeStruct((config.length,), jnp.int32)
        shapes = jax.eval_shape(lambda key: net.init(key, example), jax.random.key(0))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{folder / CONFIG} is not the configuration of a run: {error}") from None
    params, state = read_params(folder, shapes)
    return TextRun(config, net, params, state, symbols)


def read_text_config(folder: Path) -> tuple[TextConfig, Any]:
    """The options of a language model's run, and its symbols; ValueError unless config.json has both."""
    whole = files.read_json(folder / CONFIG)
    try:
        if not is_text_run(whole) or "symbols" not in whole:
            raise ValueError("it is not of a language model (--data text), which alone takes --prompt")
        return read_options(whole["options"], TextConfig), data.text.from_json(whole["symbols"])
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{folder / CONFIG} is not the configuration of a run: {error}") from None


def is_text_run(whole: Any) -> bool:
    """Whether the contents of a config.json are of a language model."""
    options = whole.get("options") if isinstance(whole, dict) else None
    return isinstance(options, dict) and options.get("data") == "text"
