"""The torch rivals of benchmarks/per_example.py, in a process of their own: torch, Opacus and BackPACK.

    python benchmarks/per_example_torch.py cnn 128 256      # network, batch, batch of the Gram matrix

Prints one line of JSON, {quantity: {rival: median seconds}}. Needs torch; Opacus and BackPACK are optional.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

BOUND = 1.0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def conv(c_in: int, c_out: int, window: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, window, stride, padding), nn.ReLU()]


def all_cnn() -> list[nn.Module]:
    """The network of that name in benchmarks/per_example.py."""
    layers, before = [], 3
    for channels, stride in [(32, 1), (32, 1), (32, 2), (64, 1), (64, 1), (64, 2)]:
        layers += conv(before, channels, 3, stride, 1)
        before = channels
    layers += [*conv(64, 64, 3), *conv(64, 64, 1), nn.Conv2d(64, 10, 1), nn.AvgPool2d(6)]
    return [*layers, nn.Flatten()]


def pooled(c_in: int, c_out: int, window: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, window, 1, padding), nn.MaxPool2d(2), nn.ReLU()]


def dense(*sizes: int) -> list[nn.Module]:
    return [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())][:-1]


NETS: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "mlp": (lambda: dense(784, 512, 512, 10), (784,)),
    "cnn": (
        lambda: [*pooled(1, 32, 3, 0), *pooled(32, 64, 3, 0), nn.Flatten(), *dense(1600, 128, 10)],
        (1, 28, 28),
    ),
    "2c2d": (
        lambda: [*pooled(1, 32, 5, 2), *pooled(32, 64, 5, 2), nn.Flatten(), *dense(3136, 1024, 10)],
        (1, 28, 28),
    ),
    "allcnn": (all_cnn, (3, 32, 32)),
}


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*NETS[name][0]()).to(DEVICE)


def plain(name: str, x: Any, y: Any) -> Callable[[], Any]:
    return plain_step(fresh(name), nn.CrossEntropyLoss(), x, y)


def plain_step(net: nn.Module, loss: Callable[..., Any], x: Any, y: Any) -> Callable[[], Any]:
    """The mean gradient by one backward pass."""

    def run() -> None:
        net.zero_grad(set_to_none=True)
        loss(net(x), y).backward()

    return run


def factors(norms: Any) -> Any:
    return (BOUND / norms).clamp(max=1.0)


def opacus_hooks(name: str, x: Any, y: Any, then: Callable[[list[Any]], Any]) -> Callable[[], Any]:
    """A function of the `grad_sample`s of all parameters, which Opacus' hooks compute."""
    from opacus.grad_sample import GradSampleModule

    net, loss = GradSampleModule(fresh(name)), nn.CrossEntropyLoss(reduction="sum")
    net.loss_reduction = "sum"

    def run() -> None:
        net.zero_grad(set_to_none=True)
        loss(net(x), y).backward()
        with torch.no_grad():
            then([p.grad_sample for p in net.parameters()])

    return run


def norms_of(grads: list[Any]) -> Any:
    return torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)


def clipped_of(grads: list[Any]) -> Any:
    c = factors(norms_of(grads))
    return [torch.einsum("n,n...->...", c, g) for g in grads]


def gram_of(grads: list[Any]) -> Any:
    return sum(g.flatten(1) @ g.flatten(1).T for g in grads)


def opacus_ghost(name: str, x: Any, y: Any) -> Callable[[], Any]:
    return ghost_step(ghost(fresh(name)), nn.CrossEntropyLoss(reduction="none"), x, y)


def ghost(net: nn.Module) -> Any:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    return GradSampleModuleFastGradientClipping(net, max_grad_norm=BOUND, use_ghost_clipping=True, loss_reduction="sum")


def ghost_step(net: Any, losses: Callable[..., Any], x: Any, y: Any) -> Callable[[], Any]:
    """The clipped sum by Opacus' ghost clipping: norms by its hooks, then a second backward pass."""

    def run() -> None:
        net.zero_grad(set_to_none=True)
        each = losses(net(x), y)
        each.sum().backward(retain_graph=True)
        net.zero_grad(set_to_none=True)
        coefficients = net.get_clipping_coef().to(each.device)
        net.disable_hooks()
        (coefficients * each).sum().backward()
        net.enable_hooks()

    return run


def backpack_with(name: str, x: Any, y: Any, made: str) -> Callable[[], Any]:
    """One backward pass with an extension of BackPACK."""
    from backpack import backpack, extend, extensions

    net, loss = extend(fresh(name)), extend(nn.CrossEntropyLoss(reduction="mean"))
    extension = getattr(extensions, made)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with backpack(extension()):
            loss(net(x), y).backward()

    return run


def seconds(run: Callable[[], Any], budget: float = 0.6) -> float:
    """The median of 3 to 50 runs, as many as fit into the budget in seconds, after a warm-up."""

    def once() -> float:
        began = time.perf_counter()
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return statistics.median(once() for _ in range(min(50, max(3, int(budget / once())))))


def programs(name: str, batch: int, gram_batch: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each quantity and rival a function that sets it up: one at a time, since hooks hold much memory."""

    def data(n: int) -> tuple[Any, Any]:
        g = torch.Generator().manual_seed(0)
        x = torch.randn(n, *NETS[name][1], generator=g)
        return x.to(DEVICE), torch.randint(0, 10, (n,), generator=g).to(DEVICE)

    def on(make: Callable[..., Any], *then: Any, n: int = batch) -> Callable[[], Any]:
        return functools.partial(make, name, *data(n), *then)

    found = {"gradient": {"torch": on(plain)}}
    if importlib.util.find_spec("opacus"):
        found["clipped sum"] = {"Opacus ghost": on(opacus_ghost), "Opacus hooks": on(opacus_hooks, clipped_of)}
        found["norms and mean"] = {"Opacus hooks": on(opacus_hooks, norms_of)}
        found["gram"] = {"Opacus hooks": on(opacus_hooks, gram_of, n=gram_batch)}
    if importlib.util.find_spec("backpack"):
        found.setdefault("norms and mean", {})["BackPACK"] = on(backpack_with, "BatchL2Grad")
        found["second moment"] = {"BackPACK": on(backpack_with, "SumGradSquared")}
        found["variance"] = {"BackPACK": on(backpack_with, "Variance")}
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    name, batch, gram_batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found: dict[str, dict[str, float]] = {}
    for quantity, rivals in programs(name, batch, gram_batch).items():
        for rival, make in rivals.items():
            found.setdefault(quantity, {})[rival] = seconds(make())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
