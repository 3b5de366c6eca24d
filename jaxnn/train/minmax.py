"""Two-player games in which each player descends on its own loss: min-max problems, GANs.

In a zero-sum game one loss is -1 times the other: x minimizes J(x, y), y maximizes it. Equations are those of gradient
descent with rates rho of x and eta of y (one rate eta in the table).

| step | x and y move | on J = x y, the norm of (x, y) at each step |
|---|---|---|
| `simultaneous` | both, by the gradients at the current point | times sqrt(1 + eta^2): spirals outward |
| `alternating` | x first, then y by the gradient at the new x | bounded, on an ellipse (eta < 2) |
| `simultaneous` with `optim.optimistic_gradient_descent` | both, by 2 g - previous g | times 1 - eta^2 / 2, small eta |
| `extragradient` | both, by the gradients at a look-ahead point | times sqrt(1 - eta^2 + eta^4): shrinks (eta < 1) |

Each takes, for each player, any optimizer of `optim` whose update needs no extra arguments; `simultaneous` with
`optim.optimistic_adam_v2` is optimistic Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.checks import as_array, require_floating, require_positive_int
from jaxnn.optim import Transformation, apply_updates
from jaxnn.train.arguments import require_floating_leaves, require_function, require_optimizer
from jaxnn.types import Array, PyTree


class Game(NamedTuple):
    """Two losses (x, y, *data) -> (): x descends on `x_loss`, y on `y_loss`.

    Example:
        >>> game = zero_sum(lambda x, y: x * y)
        >>> game.x_loss(2.0, 3.0), game.y_loss(2.0, 3.0)
        (6.0, -6.0)
    """

    x_loss: Callable[..., Array]
    y_loss: Callable[..., Array]


class GameState(NamedTuple):
    """The players' parameters, pytrees, and the states of their optimizers."""

    x: PyTree
    y: PyTree
    x_state: Any
    y_state: Any


Step: TypeAlias = Callable[..., GameState]
"""(state, *data) -> state; `data` is passed to the losses: a batch, a random key. Pure, uncompiled."""


def zero_sum(objective: Callable[..., Array]) -> Game:
    """min over x, max over y of J(x, y, *data), as a game: the losses J and -J.

    Args:
        objective: J.

    Reference: von Neumann 1928, "Zur Theorie der Gesellschaftsspiele".

    Example:
        >>> zero_sum(lambda x, y: x - y).y_loss(1.0, 3.0)
        2.0
    """
    require_function("zero_sum", "objective", objective, "lambda x, y: x * y", optional=False)
    return Game(objective, lambda x, y, *data: -objective(x, y, *data))


def init(x: PyTree, y: PyTree, x_opt: Transformation, y_opt: Transformation) -> GameState:
    """The `GameState` at the start: the players as arrays, and fresh states of their optimizers.

    Args:
        x, y: the players, pytrees of floating numbers or arrays.
        x_opt, y_opt: the optimizer of each.

    Raises:
        TypeError: a leaf of a player is not floating, or x_opt or y_opt is not an optimizer.

    Example:
        >>> from jaxnn import optim
        >>> init(1.0, jnp.ones(2), optim.sgd(0.1), optim.sgd(0.1)).y
        Array([1., 1.], dtype=float32)
    """
    _require_optimizers("minmax.init", x_opt, y_opt)
    x, y = jax.tree.map(lambda leaf: as_array("minmax.init", "a player", leaf), (x, y))
    require_floating_leaves("minmax.init", "x", x)
    require_floating_leaves("minmax.init", "y", y)
    return GameState(x, y, x_opt.init(x), y_opt.init(y))


def simultaneous(game: Game, x_opt: Transformation, y_opt: Transformation) -> Step:
    """Both players step at once: x <- x - rho grad_x J, y <- y + eta grad_y J, both gradients at the old (x, y).

    It need not converge: on J = x y each step of rate eta multiplies |(x, y)| by sqrt(1 + eta^2).

    Args:
        game: two losses, or `zero_sum(J)`.
        x_opt, y_opt: an optimizer for each player. With `optim.optimistic_gradient_descent(eta)` for both the step is
            the optimistic one, z <- z - 2 eta g_t + eta g_(t-1) with z a player and g_t the gradient of its loss in
            step t, which converges on J = x y for small eta.

    Raises:
        TypeError: game is not a Game, or x_opt or y_opt is not an optimizer; in the step: a loss is not floating.
        ValueError: in the step: a loss is not a scalar.

    Reference: Arrow, Hurwicz & Uzawa 1958, "Studies in Linear and Non-Linear Programming" (the step); Daskalakis,
        Ilyas, Syrgkanis & Zeng 2018, "Training GANs with optimism" (divergence on x y; the optimistic step).

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(0.5)
        >>> state = simultaneous(zero_sum(lambda x, y: x * y), opt, opt)(init(1.0, 0.0, opt, opt))
        >>> state.x, state.y
        (Array(1., dtype=float32), Array(0.5, dtype=float32))
    """
    _require("simultaneous", game, x_opt, y_opt)

    def step(state: GameState, *data: Any) -> GameState:
        return _moved(state, x_opt, y_opt, *_gradients(game, state.x, state.y, data))

    return step


def alternating(game: Game, x_opt: Transformation, y_opt: Transformation) -> Step:
    """x steps first, then y at the new x: x' = x - rho grad_x J(x, y), y' = y + eta grad_y J(x', y).

    On J = x y, with one rate eta < 2, x^2 + y^2 - eta x y is conserved: the iterates stay on an ellipse.

    Args:
        game, x_opt, y_opt: as for `simultaneous`.

    Reference: Goodfellow et al. 2014, "Generative adversarial nets", algorithm 1 (the players take turns).

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(0.5)
        >>> state = alternating(zero_sum(lambda x, y: x * y), opt, opt)(init(1.0, 1.0, opt, opt))
        >>> state.x, state.y
        (Array(0.5, dtype=float32), Array(1.25, dtype=float32))
    """
    _require("alternating", game, x_opt, y_opt)

    def step(state: GameState, *data: Any) -> GameState:
        x, x_state = _stepped(x_opt, _gradient(game, 0, state.x, state.y, data), state.x_state, state.x)
        y, y_state = _stepped(y_opt, _gradient(game, 1, x, state.y, data), state.y_state, state.y)
        return GameState(x, y, x_state, y_state)

    return step


def extragradient(game: Game, x_opt: Transformation, y_opt: Transformation) -> Step:
    """Step from the current point by the gradients at the look-ahead point of a simultaneous step.

    With F = (grad_x J, -grad_y J), z = (x, y) and one rate eta: z~ = z - eta F(z), then z' = z - eta F(z~).

    Both steps go through the optimizers: moments accumulate both gradients and counts advance twice; only the
    parameters are reset to z. Both gradients use the same data. Twice the cost of a simultaneous step.

    Args:
        game, x_opt, y_opt: as for `simultaneous`.

    Reference: Korpelevich 1976, "The extragradient method for finding saddle points and other problems"; Gidel, Berard,
        Vignoud, Vincent & Lacoste-Julien 2019, "A variational inequality perspective on generative adversarial
        networks", algorithm 4 (with Adam; there with fresh data for the second gradient).

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(0.5)
        >>> state = extragradient(zero_sum(lambda x, y: x * y), opt, opt)(init(1.0, 0.0, opt, opt))
        >>> state.x, state.y
        (Array(0.75, dtype=float32), Array(0.5, dtype=float32))
    """
    _require("extragradient", game, x_opt, y_opt)

    def step(state: GameState, *data: Any) -> GameState:
        ahead = _moved(state, x_opt, y_opt, *_gradients(game, state.x, state.y, data))
        here = ahead._replace(x=state.x, y=state.y)
        return _moved(here, x_opt, y_opt, *_gradients(game, ahead.x, ahead.y, data))

    return step


def play(step: Step, state: GameState, steps: int) -> tuple[PyTree, PyTree]:
    """The trajectory of a game without data: one `lax.scan`.

    Args:
        step: made by `simultaneous`, `alternating` or `extragradient`.
        state: the start, made by `init`.
        steps: number of steps, >= 0.

    Returns:
        (x, y), leaves (steps + 1, ...), the start first.

    Raises:
        TypeError: step is not a function, or state is not a GameState.
        ValueError: steps is negative.

    Example:
        >>> from jaxnn import optim
        >>> opt = optim.sgd(1.0)
        >>> x, y = play(simultaneous(zero_sum(lambda x, y: x * y), opt, opt), init(1.0, 0.0, opt, opt), 2)
        >>> x
        Array([1., 1., 0.], dtype=float32)
    """
    if not callable(step):
        raise TypeError(
            f"minmax.play: step must be a step, as minmax.simultaneous(game, x_opt, y_opt) makes it, got {step!r}."
        )
    if not isinstance(state, GameState):
        raise TypeError(
            f"minmax.play: state must be a GameState, as minmax.init(x, y, x_opt, y_opt) makes it, got {state!r}."
        )
    steps = require_positive_int("minmax.play", "steps", steps, 0)
    last, (x, y) = jax.lax.scan(lambda at, _: (step(at), (at.x, at.y)), state, length=steps)
    return jax.tree.map(lambda points, end: jnp.concatenate([points, end[None]]), (x, y), (last.x, last.y))


def _gradients(game: Game, x: PyTree, y: PyTree, data: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
    """Each player's gradient of its own loss."""
    return _gradient(game, 0, x, y, data), _gradient(game, 1, x, y, data)


def _gradient(game: Game, player: int, x: PyTree, y: PyTree, data: tuple[Any, ...]) -> PyTree:
    """The gradient of a player's own loss (player 0 is x, 1 is y); raises if it is not a floating scalar."""

    def checked(*arguments: Any) -> Array:
        value, name = game[player](*arguments), Game._fields[player]
        shape = jax.tree.map(jnp.shape, value)
        if shape != ():
            raise ValueError(
                f"minmax: the losses must return one number, got shape {shape} from {name}. Take the mean or the sum."
            )
        remedy = "Compute it from the players in floating point."
        require_floating("minmax", f"the value of {name}", jnp.result_type(value), remedy)
        return value

    return jax.grad(checked, player)(x, y, *data)


def _moved(state: GameState, x_opt: Transformation, y_opt: Transformation, x_grad: PyTree, y_grad: PyTree) -> GameState:
    """Both players moved from `state` along these gradients."""
    x, x_state = _stepped(x_opt, x_grad, state.x_state, state.x)
    y, y_state = _stepped(y_opt, y_grad, state.y_state, state.y)
    return GameState(x, y, x_state, y_state)


def _stepped(opt: Transformation, grad: PyTree, opt_state: Any, params: PyTree) -> tuple[PyTree, Any]:
    """One player moved along a gradient, and its optimizer's new state."""
    updates, opt_state = opt.update(grad, opt_state, params)
    return apply_updates(params, updates), opt_state


def _require(where: str, game: Any, x_opt: Any, y_opt: Any) -> None:
    if not isinstance(game, Game):
        raise TypeError(f"{where}: game must be a Game, such as minmax.zero_sum(lambda x, y: x * y), got {game!r}.")
    _require_optimizers(where, x_opt, y_opt)


def _require_optimizers(where: str, x_opt: Any, y_opt: Any) -> None:
    require_optimizer(where, x_opt, "x_opt")
    require_optimizer(where, y_opt, "y_opt")
