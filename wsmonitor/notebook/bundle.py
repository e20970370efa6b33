"""The front-end as one module: what anywidget loads, made from the files in ``static/`` at import.

There is no build step and no generated file: the ES modules are put one after the other in the
order of their imports, with the import lines and the word ``export`` taken out. That is right as
long as they keep to four rules, which are checked here: an import is one line at the file's top
and takes names (unrenamed) from ``./*.js``; no two files declare the same top-level name; imports
make no circle; only the entry has a default export.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

ENTRY: Final = "observer.js"
PART_ENTRY: Final = "part.js"
STYLES: Final = ("observer.css", "parts.css")

_IMPORT = re.compile(r'^import \{ (\w+(?:, \w+)*) \} from "\./(\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
_DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
_STRAY = re.compile(r"^(?:import\b.*|export (?!default).*)$", re.MULTILINE)


def static() -> Traversable:
    """The folder of the front-end's files."""
    return files(__package__) / "static"


def bundle(folder: Traversable | None = None, entry: str = ENTRY) -> str:
    """The front-end's modules as one.

    Raises:
        ValueError: a file breaks one of the rules in the module's docstring.
    """
    folder = folder or static()
    sources: dict[str, str] = {}
    owners: dict[str, str] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"imports go in a circle: {' > '.join((*above, name))}")
        if name in sources:
            return
        text = (folder / name).read_text(encoding="utf-8")
        declared = set(_DECLARED.findall(text))
        for match in _IMPORT.finditer(text):
            visit(match[2], (*above, name))
            for wanted in match[1].split(", "):
                if owners.get(wanted) != match[2]:
                    raise ValueError(f"{name} imports {wanted} from {match[2]}, which does not declare it")
        for item in declared:
            if item in owners:
                raise ValueError(f"{item} is declared in {owners[item]} and in {name}")
            owners[item] = name
        text = _EXPORT.sub("", _IMPORT.sub("", text))
        stray = _STRAY.search(text)
        if stray is not None or (name != entry and "\nexport default" in text):
            raise ValueError(
                f"{name}: not a form of import or export that can be put together: {stray and stray[0]}"
            )
        sources[name] = f"// ---- {name}\n{text}"

    visit(entry, ())
    return "\n".join(sources.values())


def stylesheet() -> str:
    """The front-end's style sheets as one."""
    return "\n".join((static() / style).read_text(encoding="utf-8") for style in STYLES)
