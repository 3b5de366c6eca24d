"""The records of a fit as curves elsewhere: callbacks for `fit(on_epoch=...)` that write to a service or a file.

| function | where the metrics of each epoch go | needs |
|---|---|---|
| `tensorboard` | event files in a folder | `pip install 'jaxnn[tensorboard]'` |
| `wandb` | Weights & Biases | `pip install 'jaxnn[wandb]'` |
| `trackio` | trackio, on this machine or in a Space | `pip install 'jaxnn[trackio]'` |
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
"""The packages by extra."""

Writer: TypeAlias = tuple[Callable[[dict[str, float], int], Any], Callable[[], Any]]
"""(write, close): `write(scalars, epoch)` writes all of them at once."""


class Log:
    """A callback for `fit(on_epoch=...)`: each record becomes scalars, their step the epoch.

    Close it after the fit, or use it as a context. What it writes to is opened with the first record: of a fit that had
    ended, nothing is.

    Args:
        begin: first epoch -> `Writer`.
    """

    def __init__(self, begin: Callable[[int], Writer]) -> None:
        self._begin = begin
        self._writer: Writer | None = None

    def __call__(self, record: Mapping[str, float], ts: Any = None) -> None:
        """Write the metrics of an epoch; `ts` is not used."""
        epoch = int(record["epoch"])
        if self._writer is None:
            self._writer = self._begin(epoch)
        self._writer[0]({name: float(value) for name, value in record.items() if name != "epoch"}, epoch)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer[1]()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensorboard(folder: str | Path) -> Log:
    """Scalars in TensorBoard's event files, for `tensorboard --logdir FOLDER`.

    A fit that goes on hides what was written after the epoch where it does (`purge_step`): no epoch shows twice.

    Args:
        folder: of one run; made if it does not exist.

    Returns:
        A callback (record, ts), to be closed.

    Raises:
        ImportError: the package tensorboardX is not installed.

    Example:
        >>> with tensorboard("runs/a/tensorboard") as log:  # doctest: +SKIP
        ...     result = train.fit(net, loss, opt, (x, y), key=key, epochs=30, on_epoch=log)
    """
    package = library("tensorboard")

    def begin(first: int) -> Writer:
        # Names have the time in seconds: a file of the same second would be overwritten.
        writer = package.SummaryWriter(str(folder), purge_step=first, filename_suffix=f".{first:08d}")

        def write(scalars: dict[str, float], epoch: int) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        return write, writer.close

    return Log(begin)


def wandb(**settings: Any) -> Log:
    """Scalars in a run of Weights & Biases.

    With an `id` of your own, a fit that goes on continues that run; W&B leaves out epochs that it has.

    Args:
        settings: as for `wandb.init`: project, name, id, config, dir ...; `resume` is "allow" by default.

    Returns:
        A callback (record, ts), to be closed.

    Raises:
        ImportError: the package wandb is not installed.

    Example:
        >>> with wandb(project="digits", id="a1") as log:  # doctest: +SKIP
        ...     result = train.fit(net, loss, opt, (x, y), key=key, epochs=30, on_epoch=log)
    """
    package = library("wandb")

    def begin(first: int) -> Writer:
        run = package.init(**{"resume": "allow"} | settings)
        return lambda scalars, epoch: run.log(scalars, step=epoch), run.finish

    return Log(begin)


def trackio(**settings: Any) -> Log:
    """Scalars in a run of trackio, for `trackio show`.

    With a `name` of your own, a fit that goes on continues that run; the epochs after its last checkpoint, which it
    repeats, are there twice.

    Args:
        settings: as for `trackio.init`: project, name, group, config ...; `resume` is "allow" by default.

    Returns:
        A callback (record, ts), to be closed.

    Raises:
        ImportError: the package trackio is not installed.

    Example:
        >>> with trackio(project="digits", name="a1") as log:  # doctest: +SKIP
        ...     result = train.fit(net, loss, opt, (x, y), key=key, epochs=30, on_epoch=log)
    """
    package = library("trackio")

    def begin(first: int) -> Writer:
        run = package.init(**{"resume": "allow"} | settings)
        return lambda scalars, epoch: run.log(scalars, step=epoch), run.finish

    return Log(begin)


def library(extra: str) -> Any:
    """The package of an extra.

    Raises:
        ImportError: it is not installed.

    Example:
        >>> library("tensorboard").SummaryWriter  # doctest: +SKIP
        <class 'tensorboardX.writer.SummaryWriter'>
    """
    try:
        return importlib.import_module(PACKAGES[extra])
    except ImportError as error:
        raise ImportError(
            f"{extra}: needs the package {PACKAGES[extra]}. Install it: pip install 'jaxnn[{extra}]'."
        ) from error
