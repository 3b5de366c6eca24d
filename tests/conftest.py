"""Settings shared by all tests: a compilation cache, deterministic property tests, no display."""

import gc
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parent.parent / ".cache" / "jax"
FOR_DEVICES = os.environ.get("JAXNN_TEST_COMPILED") == "1"
"""Whether this process compiles for devices that are not here (tests/devices/test_compiled.py): as their users do."""
if not FOR_DEVICES:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
# Thousands of small programs are the same from test to test and from run to run: all are kept.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
VERSION = ".".join(importlib.metadata.version("jax").split(".")[:2])
if VERSION in ("0.10", "0.11", "0.12") and not FOR_DEVICES:
    # The suite compiles thousands of small programs and runs each once: without the passes that make programs faster,
    # and without threads for parts of a program, it takes half the time. XLA stops at a flag that it does not know.
    flags = (
        "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0 "
        "--xla_cpu_parallel_codegen_split_count=1"
    )
    if VERSION == "0.10":
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".rstrip()
gc.set_threshold(100_000, 20, 50)  # tracing makes millions of objects that live as long as the suite

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.load_profile("suite")

TRAINING_ROOMS = ("classic", "compare", "gallery", "playground", "studies")
"""Rooms whose examples in docstrings train networks: the long run takes them."""

LIKE_OPTAX = {
    "losses": ("contrastive", "cosine_along", "divergence_along", "fenchel_young", "ranking", "segmentation",
               "sequence", "softmax_along"),
    "optim": ("nnls",),
    "projections": ("sets",),
    "tree": ("arithmetic", "making"),
}  # fmt: skip
"""Modules whose examples the long run takes: the tests against optax have the same and more."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "proof" not in config.option.markexpr:
        leave_out_proofs(config, items)
    for item in items:
        room, module = item.path.parent.name, item.path.stem
        if isinstance(item, pytest.DoctestItem) and (room in TRAINING_ROOMS or module in LIKE_OPTAX.get(room, ())):
            item.add_marker(pytest.mark.slow)


def leave_out_proofs(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is marked `proof`: neither the short nor the long run takes it, only `-m proof`."""
    proofs = [item for item in items if item.get_closest_marker("proof")]
    items[:] = [item for item in items if not item.get_closest_marker("proof")]
    if proofs:
        config.hook.pytest_deselected(items=proofs)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests that passed recorded as `printed`: their own output is hidden, and lost in a worker."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "printed":
                terminalreporter.write_line(str(text))


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; a test that asks for it is left out where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS)}): apt-get install chromium")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
