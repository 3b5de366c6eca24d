"""JavaScript modules as one script: a browser imports no modules from files on disk."""

from __future__ import annotations

import re
from collections.abc import Callable

IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:const|function) (\w+))", re.MULTILINE)
OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def bundle(entry: str, read: Callable[[str], str]) -> str:
    """The module `entry` and all that it imports, each as a function that runs once and returns its exports.

    Args:
        entry: name of a module, without ".js". Modules use `import {a, b} from "./name.js";`, and `export` before
            `const` or `function`, one name each.
        read: name -> text.

    Raises:
        ValueError: another form of import or export, or modules that import each other.

    Example:
        >>> modules = {"a": 'import {b} from "./b.js";\\nb();', "b": "export const b = () => 1;"}
        >>> print(bundle("a", modules.__getitem__))
        "use strict";
        const $b = (() => {
        const b = () => 1;
        return {b};
        })();
        const $a = (() => {
        const {b} = $b;
        b();
        return {};
        })();
    """
    done: dict[str, str] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"bundle: modules import each other: {' -> '.join((*path, name))}.")
        if name not in done:
            text = read(name)
            for _, imported in IMPORT.findall(text):
                add(imported, (*path, name))
            done[name] = _as_function(name, text)

    add(entry, ())
    return "\n".join(['"use strict";', *done.values()])


def _as_function(name: str, text: str) -> str:
    exports = ", ".join(found for _, found in EXPORT.findall(text))
    body = EXPORT.sub(r"\1", IMPORT.sub(r"const \1 = $\2;", text))
    left = OTHER.search(body)
    if left:
        raise ValueError(
            f'bundle: {name}.js has {left[0]!r}. Write import {{a, b}} from "./name.js"; or export before const or '
            "function."
        )
    return f"const ${name} = (() => {{\n{body.strip()}\nreturn {{{exports}}};\n}})();"
