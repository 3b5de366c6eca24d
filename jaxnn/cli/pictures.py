"""Pictures of the playground and of studies, for `jaxnn gallery`: `jaxnn.gallery` imports neither."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.figure import Figure

from jaxnn import playground
from jaxnn.gallery.base import Picture
from jaxnn.studies import induction, tasks, vanishing

SOURCE = (
    "Smilkov, D., Carter, S., Sculley, D., Viegas, F. B. & Wattenberg, M. (2017). Direct-manipulation visualization of "
    "deep networks."
)
HEADS = "Olsson, C. et al. (2022). In-context learning and induction heads."


def _spiral() -> Figure:
    settings = playground.Settings(data="spiral", features=("x", "y", "sinx", "siny"), hidden=(8, 8))
    done = playground.run(settings)
    return playground.draw(done, playground.make_views(done))


@functools.cache
def _induction() -> Mapping[str, Figure]:
    return induction.draw(induction.run())


def _curves() -> Figure:
    return _induction()["induction"]


def _heads() -> Figure:
    return _induction()["induction-heads"]


def _vanishing() -> Figure:
    return vanishing.draw(vanishing.run())["vanishing"]


def _tasks() -> Figure:
    return tasks.draw(tasks.run(epochs=3))["tasks"]


PLAYGROUND = (
    Picture(
        "playground-data",
        "The six data sets of the playground",
        "Four classification problems, two of regression. In gauss and spiral noise moves the points; in the others it "
        "perturbs the location at which the target is evaluated, so that labels near a border are wrong.",
        r"\mathrm{circle:} \;\; d = +1 \;\mathrm{if}\; |p + \nu e| < 2.5 \;\mathrm{else}\; -1, \quad e \sim U(-5, 5)^2",
        SOURCE,
        playground.draw_sources,
    ),
    Picture(
        "playground-spiral",
        "A network and its units after training on the spiral",
        "The last frame of jaxnn playground --data spiral --features x,y,sinx,siny --hidden 8,8: the output of each "
        "unit over the plane, the weights between them, the network's output with the training points, and the losses "
        "up to it (blue line). The page written by the command shows all of training.",
        r"C = \frac{1}{N} \sum_i \frac{1}{2} (y_i - t_i)^2",
        SOURCE,
        _spiral,
    ),
)

SEQUENCES = (
    Picture(
        "sequences-vanishing",
        "How much the last output depends on earlier states",
        "The derivative of the last output in the state k positions before it, relative to that in the last state: of "
        "four recurrent layers, before training (left) and after it on the adding problem. Of the simple layer it "
        "shrinks exponentially in k; gates can keep it. The figure of jaxnn study vanishing.",
        r"\frac{\partial y}{\partial s_{T-k}} = w' \frac{\partial h_T}{\partial s_{T-1}} \cdots "
        r"\frac{\partial s_{T-k+1}}{\partial s_{T-k}}",
        "Bengio, Y., Simard, P. & Frasconi, P. (1994). Learning long-term dependencies with gradient descent is "
        "difficult.",
        _vanishing,
    ),
    Picture(
        "sequences-tasks",
        "Which network learns which synthetic task",
        "Five networks of two layers, trained on six tasks by the same recipe for 300 steps: accuracy on examples not "
        "trained on, beside that of a guess. One short run of each pair: a low score says that the network did not "
        "learn the task in these steps, not that it cannot. jaxnn study tasks trains twice as long.",
        "",
        "Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory (the adding problem).",
        _tasks,
    ),
    Picture(
        "sequences-induction",
        "How two layers of attention learn to look up",
        "Networks of one and of two layers of attention on random sequences that repeat: the loss of the repeated "
        "tokens (left), and what each head of the second network attends to, on average: the previous token (middle), "
        "and the token after an earlier occurrence of the present one (right), which one layer cannot find. A figure "
        "of jaxnn study induction.",
        r"p_{ts} = e^{z_{ts}} / \sum_r e^{z_{tr}}",
        HEADS,
        _curves,
    ),
    Picture(
        "sequences-attention",
        "The attention of each head after training",
        "Attention probabilities of the same network of two layers on one example, a row for each layer: from the "
        "query position (rows of an image) to the keys (columns). Squares mark the keys that follow an earlier "
        "occurrence of the query's token, where induction heads look. A figure of jaxnn study induction.",
        r"p_{ts} = e^{z_{ts}} / \sum_r e^{z_{tr}}",
        HEADS,
        _heads,
    ),
)

MORE: Mapping[str, Sequence[Picture]] = MappingProxyType({"Sequences": SEQUENCES, "Playground": PLAYGROUND})
"""Chapters of other rooms by their titles, after those of the gallery."""
