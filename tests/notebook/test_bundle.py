"""The front-end is one valid module, made by checked rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsmonitor.notebook.bundle import ENTRY, PART_ENTRY, bundle, static, stylesheet


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return folder


def test_modules_come_in_the_order_of_their_imports(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        observer='import { b } from "./b.js";\nexport default { b };\n',
        b='import { a } from "./a.js";\nexport const b = a + 1;\n',
        a="export const a = 1;\n",
    )
    made = bundle(folder)
    assert made.index("const a = 1") < made.index("const b = a + 1") < made.index("export default")
    assert "import" not in made
    assert made.count("export") == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"observer": 'import { a } from "./a.js";\n', "a": 'import { x } from "./observer.js";\n'},
            "circle",
        ),
        ({"observer": 'import { a } from "./a.js";\n', "a": "export const b = 1;\n"}, "does not declare"),
        (
            {
                "observer": 'import { a } from "./a.js";\nconst z = 1;\n',
                "a": "export const a = 1;\nconst z = 2;\n",
            },
            "z is declared",
        ),
        (
            {"observer": 'import * as a from "./a.js";\n', "a": "export const a = 1;\n"},
            "not a form of import",
        ),
        (
            {"observer": 'import { a as b } from "./a.js";\n', "a": "export const a = 1;\n"},
            "not a form of import",
        ),
    ],
)
def test_what_cannot_be_put_together_is_refused(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bundle(write(tmp_path, **files))


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
)
def test_nothing_in_the_front_end_parses_markup_or_code(word: str) -> None:
    """Untrusted text is text."""
    for file in static().iterdir():
        assert word not in file.read_text(encoding="utf-8"), file.name


def test_every_file_ships_and_is_used() -> None:
    made = "".join(bundle(entry=entry) for entry in (ENTRY, "restore.js", "revive.js", PART_ENTRY))
    for file in static().iterdir():
        if file.name.endswith(".js"):
            assert f"// ---- {file.name}\n" in made
    assert ".wsm" in stylesheet()
