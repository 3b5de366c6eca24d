"""Modules as one script, and what is refused."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from jaxnn.playground.bundle import bundle

WEB = resources.files("jaxnn.playground") / "web"


def test_every_module_of_the_page_is_in_the_script_once_after_what_it_imports() -> None:
    names = {path.name.removesuffix(".js") for path in WEB.iterdir() if path.name.endswith(".js")}
    script = bundle("main", lambda name: (WEB / f"{name}.js").read_text(encoding="utf-8"))
    order = re.findall(r"^const \$(\w+) = \(\(\) => \{$", script, re.MULTILINE)
    assert len(order) == len(set(order))
    assert set(order) == names
    for name, text in re.findall(r"^const \$(\w+) = (.*?)^\}\)\(\);$", script, re.MULTILINE | re.DOTALL):
        used = re.findall(r"^const \{.*\} = \$(\w+);$", text, re.MULTILINE)
        assert all(order.index(other) < order.index(name) for other in used), name
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)


def test_only_what_is_exported_leaves_a_module() -> None:
    script = bundle("a", {"a": "const own = 1;\nexport function f() {}\nexport const g = 2;"}.__getitem__)
    assert "return {f, g};" in script


@pytest.mark.parametrize(
    "line",
    [
        'import * as b from "./b.js";',
        'import {b} from "b.js";',
        "export default 1;",
        "export {b};",
        "export let b = 1;",
        'import {b} from "./b.js"',
    ],
)
def test_other_forms_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"a\.js has .* Write import"):
        bundle("a", {"a": line, "b": "export const b = 1;"}.__getitem__)


def test_a_circle_is_refused() -> None:
    texts = {
        "a": 'import {b} from "./b.js";\nexport const a = 1;',
        "b": 'import {a} from "./a.js";\nexport const b = 1;',
    }
    with pytest.raises(ValueError, match="modules import each other: a -> b -> a"):
        bundle("a", texts.__getitem__)
