"""Checkpoints by orbax, for arrays whose parts lie on the devices of several processes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from jaxnn import files
from jaxnn.checks import require_positive_int
from jaxnn.train.checkpoints import FORMAT, dtypes_of, header, require_alike
from jaxnn.train.processes import agreed, is_first
from jaxnn.train.saving.background import Background
from jaxnn.train.saving.leaves import IMPLEMENTATIONS, is_key
from jaxnn.types import PyTree

SUMS = "sha256-{step:010d}.json"
"""The file with the digest of a step's files, written after them: a step without it was not finished."""


class OrbaxCheckpoints:
    """The checkpoints of one run, written by `orbax.checkpoint.CheckpointManager`: every process writes its parts.

    For `fit(folder=OrbaxCheckpoints("runs/a"))`. The processes must share the folder. Beside each step lies a digest of
    its files, because orbax returns flipped bytes as numbers.

    Args:
        folder: made if it does not exist.
        keep: how many of the newest steps to keep, >= 1.

    Raises:
        ImportError: orbax is not installed: `pip install 'jaxnn[orbax]'`.

    Example:
        >>> import tempfile, jax.numpy as jnp  # doctest: +SKIP
        >>> with tempfile.TemporaryDirectory() as folder, OrbaxCheckpoints(folder) as found:  # doctest: +SKIP
        ...     found.save(10, {"w": jnp.ones(3)})
        ...     found.wait()
        ...     found.steps()
        [10]
    """

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        try:
            import orbax.checkpoint as ocp
        except ImportError:
            raise ImportError("OrbaxCheckpoints needs orbax: pip install 'jaxnn[orbax]'.") from None
        keep = require_positive_int("OrbaxCheckpoints", "keep", keep)
        self.folder = Path(folder).absolute()  # orbax refuses relative paths
        self._ocp = ocp
        # orbax deletes the oldest before the newest has its digest: with one, a kill in between would leave none.
        options = ocp.CheckpointManagerOptions(max_to_keep=max(keep, 2), create=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        # JAX counts the calls in which processes agree on where to stop; orbax would count in them by its own numbers,
        # and the number that they agree on then never come.
        self._manager.reached_preemption = lambda step: False
        self._summing = Background()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that were finished, in order."""
        self._manager.reload()
        return sorted(step for step in self._manager.all_steps() if self._sums(step).is_file())

    def about(self, step: int) -> dict[str, Any]:
        """The JSON of a step: "format", "versions", "dtypes" by name of leaf, and the writer's "about".

        Raises:
            ValueError: it is damaged, or of a newer version.
        """
        self._require_whole(step)
        args = self._ocp.args
        found = dict(self._manager.restore(step, args=args.Composite(about=args.JsonRestore()))["about"])
        if found.get("format") != FORMAT:
            raise ValueError(
                f"{self.folder} has checkpoints of format {found.get('format')}, this version of jaxnn reads {FORMAT}."
            )
        return found

    def save(self, step: int, values: PyTree, about: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint in the background, its parts by every process."""
        self.wait()
        whole = json.loads(header(values, about))  # a copy: the caller goes on to change the history in it
        leaves = {f"leaf_{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(values))}
        args = self._ocp.args
        self._manager.save(
            step, args=args.Composite(tree=args.StandardSave(leaves), about=args.JsonSave(whole)), force=True
        )
        self._summing.start(functools.partial(self._sum, step))

    def wait(self) -> None:
        """Until the last checkpoint is written, with its digest; raises if that failed."""
        self._summing.wait()

    def _sum(self, step: int) -> None:
        self._manager.wait_until_finished()
        if is_first():
            files.write_json(self._sums(step), {"sha256": self._digest(step)})
            there = {self._sums(one) for one in self._manager.all_steps()}
            for path in set(self.folder.glob("sha256-*.json")) - there:
                path.unlink(missing_ok=True)

    def restore(self, like: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The values and the `about` of a step, or of the newest.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, of a newer version, or not like `like`.
        """
        self.wait()
        steps = self.steps()
        step = agreed(max(steps, default=-1)) if step is None else step
        if step not in steps:
            raise FileNotFoundError(f"{self.folder} has no checkpoint of step {step}.")
        about = self.about(step)
        require_alike(self.folder / str(step), dtypes_of(like), about["dtypes"])
        leaves, structure = jax.tree.flatten(like)
        args = self._ocp.args
        wanted = {f"leaf_{i}": _shape_of(leaf) for i, leaf in enumerate(leaves)}
        found = self._manager.restore(step, args=args.Composite(tree=args.StandardRestore(wanted)))["tree"]
        filled = [_like(found[f"leaf_{i}"], leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, filled), about["about"]

    def _sums(self, step: int) -> Path:
        return self.folder / SUMS.format(step=step)

    def _digest(self, step: int) -> str:
        """Of the names and contents of all files of a step."""
        digest = hashlib.sha256()
        root = self.folder / str(step)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(root)}\n".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _require_whole(self, step: int) -> None:
        known = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = files.read_json(self._sums(step))["sha256"]
        if known != self._digest(step):
            before = [one for one in self.steps() if one < step]
            told = f" To go on from step {before[-1]}, delete it." if before else ""
            place = self.folder / str(step)
            raise ValueError(f"{place} is damaged: its files have another digest than when they were written.{told}")


def _plain(leaf: Any) -> Any:
    """A leaf as orbax takes it."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    plain = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    sharding = None if is_key(leaf) else getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(np.shape(plain), plain.dtype, sharding=sharding)


def _like(found: Any, leaf: Any) -> Any:
    """What orbax read as a leaf of that kind."""
    if is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.asarray(found), impl=IMPLEMENTATIONS[str(leaf.dtype)])
    return np.asarray(found) if isinstance(leaf, np.ndarray) else found
