"""The room's modules: all named, all told of, imported when they are first asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxnn import classic


def test_every_module_is_named_and_told_of() -> None:
    files = {path.stem for path in Path(classic.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(classic.MODULES) == set(dir(classic)) == files
    assert all(f"`{name}`" in (classic.__doc__ or "") for name in files)


@pytest.mark.slow
def test_a_module_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, jaxnn; before = 'scipy' in sys.modules; jaxnn.classic.gates.xor; print(before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_another_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'perceptrons'. Did you mean jaxnn.classic.perceptron\?"):
        _ = classic.perceptrons  # type: ignore[attr-defined]
