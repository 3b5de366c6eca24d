"""optax's own tests over jaxnn: their files are run as they are, with jaxnn's functions under optax's names.

A test file is read from the installed optax, or from the folder that the variable JAXNN_OPTAX_TESTS names, and executed
with an `__import__` of its own that answers every `import optax...` with a stand-in. `sys.modules` is never touched, so
nothing leaks into other tests. A stand-in for a module of optax gives, in this order:

1. for a package, the stand-in of its submodule; for a file of tests, that file run the same way;
2. jaxnn's object of that name, from the rooms that ROOMS names for the module;
3. optax's own object, if KEPT lists it as what the tests are written with rather than what they test;
4. a `Missing`: a name that jaxnn does not have fails the tests that use it, and them only.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import re
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import optax

from jaxnn import losses, microbatching, optim, perturbations, projections, schedules, tree

FOLDER = Path(os.environ.get("JAXNN_OPTAX_TESTS") or Path(optax.__file__).parent)
"""Where optax's test files are, laid out as in its package."""

ROOMS: dict[str, tuple[Any, ...]] = {
    "optax.losses": (losses,),
    "optax.schedules": (schedules, optim),
    "optax.tree": (tree,),
    "optax.projections": (projections,),
    "optax.perturbations": (perturbations,),
    "optax.microbatching": (microbatching,),
    "optax": (optim, schedules, losses),
}
"""Where jaxnn has the names of a module of optax, by the longest prefix of that module's name."""

RENAMED = {
    "optax.tree.map_params": optim.tree_map_params,
    # By their annotation the tests find the rules whose learning rate may be a schedule.
    "optax._src.base.ScalarOrSchedule": inspect.signature(optim.sgd).parameters["learning_rate"].annotation,
}

ANY = re.compile("")
KEPT = {
    "optax._src.base": re.compile(
        "Params|Updates|OptState|ArrayTree|PRNGKey|(Stateful)?Schedule|TransformUpdateFn|EmptyState"
        "|GradientTransformation(ExtraArgs)?"
    ),
    "optax._src.numerics": re.compile("abs_sq"),
    "optax._src.utils": re.compile("x64_precision"),
    "optax.transforms._clipping": re.compile("unitwise_norm"),
    "optax.tree": ANY,
    "optax.projections": ANY,
}
"""What the tests are written with: types for transformations of their own, and functions over any pytree."""

OPTIONAL = ("flax", "sklearn")
"""Libraries that single tests of optax compare with; those tests are skipped where the library is not installed."""


class Absent:
    """Stands for a module that is not installed: whoever calls anything of it is skipped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Absent:
        return Absent(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise unittest.SkipTest(f"{self._name} is not installed")


class Missing:
    """Stands for a name that jaxnn does not have: whoever calls it fails."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AttributeError(f"jaxnn has no {self._name}")


class StandIn:
    """Stands for a module of optax in the files that a `Suites` runs."""

    def __init__(self, name: str, find: Callable[[str, str], Any]) -> None:
        self._name, self._find = name, find

    def __getattr__(self, name: str) -> Any:
        return self._find(self._name, name)


class Suites:
    """The test files that one run executes, and the stand-ins that they import; with `swap=False` optax itself."""

    def __init__(self, *, swap: bool = True) -> None:
        self._swap = swap
        self._loaded: dict[str, types.ModuleType] = {}

    def load(self, name: str) -> types.ModuleType:
        """The file of that module name, run once."""
        if name not in self._loaded:
            path = FOLDER.joinpath(*name.split(".")[1:]).with_suffix(".py")
            module = types.ModuleType(name)
            self._loaded[name] = module
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
            exec(compile(path.read_text(), str(path), "exec"), vars(module))
        return self._loaded[name]

    def _import(self, name: str, *args: Any, **kwargs: Any) -> Any:
        names = dict(zip(("globals", "locals", "fromlist", "level"), args, strict=False), **kwargs)
        if name.split(".")[0] == "optax":
            return StandIn(name if names.get("fromlist") else "optax", self.find)
        try:
            return builtins.__import__(name, *args, **kwargs)
        except ModuleNotFoundError:
            if name.split(".")[0] not in OPTIONAL:
                raise
            return Absent(name)

    def find(self, module: str, name: str) -> Any:
        """What `module.name` is for the tests: see the top of this file."""
        whole = f"{module}.{name}"
        if name.endswith("_test") or name == "test_utils":
            return self.load(whole)
        if _is_module(whole):
            return StandIn(whole, self.find)
        if not self._swap:
            return getattr(importlib.import_module(module), name)
        if whole in RENAMED:
            return RENAMED[whole]
        for room in ROOMS[next(prefix for prefix in ROOMS if f"{module}.".startswith(f"{prefix}."))]:
            if name in getattr(room, "__all__", vars(room)):
                return getattr(room, name)
        kept = KEPT.get(module)
        if kept is ANY or (kept is not None and kept.fullmatch(name)):
            return getattr(importlib.import_module(module), name)
        return Missing(whole)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class Outcome(unittest.TestResult):
    """Which tests ran, and how each ended: `failed` and `skipped` give a line for each."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.failed: dict[str, str] = {}
        self.skipped_tests: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.ran.append(title(test))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._fail(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._fail(test, err)

    addError = addFailure

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.skipped_tests[title(getattr(test, "test_case", test))] = reason

    def _fail(self, test: unittest.TestCase, err: Any) -> None:
        self.failed.setdefault(title(test), f"{err[0].__name__}: {err[1]}")


def title(test: unittest.TestCase) -> str:
    """Class, method and arguments of a test; the arguments stand for the numbers that absl counts them by."""
    method = test._testMethodName
    arguments = getattr(test, "_test_params_reprs", {}).get(method, "")
    if arguments:
        method = re.sub(r"\d+$", "", method)
    arguments = re.sub(r"<(?:function|class) '?([\w.<>]+?)'?(?: at 0x[0-9a-f]+)?>", r"\1", arguments)
    return f"{type(test).__name__}.{method}{arguments}"


def run(name: str, *, swap: bool = True, every: int = 1, keep: Callable[[str], bool] = lambda title: True) -> Outcome:
    """Run the tests of one file, such as "transforms/_clipping_test".

    Args:
        name: of the file, below optax's package, without its ending.
        swap: whether jaxnn's functions stand for optax's; else optax is tested, which shows what fails without us.
        every: of the tests that `keep` keeps, run each `every`-th.
        keep: by title.
    """
    outcome = Outcome()
    with _settings_restored(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Suites(swap=swap).load(".".join(["optax", *name.split("/")]))
        cases = [v for v in vars(module).values() if inspect.isclass(v) and issubclass(v, unittest.TestCase)]
        loader = unittest.TestLoader()
        tests = [test for case in cases for test in loader.loadTestsFromTestCase(case)]
        chosen = [test for test in tests if keep(title(test))][::every]
        unittest.TestSuite(chosen).run(outcome)
    return outcome


@contextlib.contextmanager
def _settings_restored() -> Iterator[None]:
    """Undo what optax's tests leave behind: float64 switched on, handlers of loggers."""
    loggers = [logging.getLogger(), logging.getLogger("jax")]
    handlers = [list(log.handlers) for log in loggers]
    x64 = jax.config.read("jax_enable_x64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", x64)
        for log, kept in zip(loggers, handlers, strict=True):
            log.handlers[:] = kept
