"""The tutorials: checked as a reader's own CI would check them, and renewed.

``python -m tests.notebooks renew [NAME …]`` runs tutorials in fresh kernels and stores their outputs, where
these differ by more than the sanitize file takes out; ``anew`` stores all of them, as when the static copy
looks otherwise than it did. ``check`` runs nbval over them, strictly.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.kernels import INSTALLED, Kernel, kernels_folder
from wsmonitor.notebook import tutorials
from wsmonitor.notebook.trace import sanitize_file

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "notebooks"
PATIENCE: Final = 120
"""Seconds that a cell may take, on however busy a machine."""

WIDGET: Final = "application/vnd.jupyter.widget-view+json"
"""Useless in a file without the widgets' state, and another one at every run."""


def environment(home: Path) -> dict[str, str]:
    """A reader's environment: no server of the user's, and all that is written to in *home*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WSMONITOR_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")])
    folders = {
        name: str(home / name.lower()) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "WSMONITOR_HOME")
    }
    for folder in folders.values():
        Path(folder).mkdir(mode=0o700, exist_ok=True)
    return {**kept, **folders, "WSMONITOR_LOCAL": "inline", "PYTHONPATH": paths.rstrip(os.pathsep)}


def check(paths: Sequence[Path], kernel: Kernel = INSTALLED) -> int:
    """Run nbval over *paths* on *kernel*, two notebooks at a time; pytest's exit status."""
    env = {} if kernel.installed else kernel.env(kernels_folder())
    command = [
        sys.executable, "-m", "pytest", "--nbval", *(["--nbval-current-env"] if kernel.installed else []),
        "--nbval-sanitize-with", str(sanitize_file()), "--nbval-cell-timeout", str(PATIENCE),
        # Warnings of the notebook tools themselves are not this project's to make errors of. A notebook's
        # cells share a kernel: they stay together.
        "-W", "default", "-n", "2", "--dist", "loadfile", "-q", *map(str, paths),
    ]  # fmt: skip
    print("$ " + " ".join(command).replace(sys.executable, "python"), flush=True)
    with tempfile.TemporaryDirectory(prefix="wsmonitor-notebooks-") as home:
        return subprocess.run(
            command, cwd=ROOT, env={**environment(Path(home)), **env}, check=False
        ).returncode


def patterns() -> list[tuple[str, str]]:
    """What the sanitize file says, as nbval reads it."""
    text = sanitize_file().read_text(encoding="utf-8")
    return re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, flags=re.MULTILINE)


def sanitized(value: Any) -> Any:
    """*value* with what the sanitize file names taken out of every string in it."""
    if isinstance(value, str):
        for regex, replace in patterns():
            value = re.sub(regex, replace, value)
        return value
    if isinstance(value, list):
        return [sanitized(item) for item in value]
    if isinstance(value, Mapping):
        return {key: sanitized(item) for key, item in value.items()}
    return value


def renew(path: Path, *, anew: bool = False) -> bool:
    """Run the notebook at *path* and store its outputs; whether anything has changed.

    *anew*: also those that differ only in what the sanitize file takes out.

    Raises:
        CellExecutionError: a cell failed that is not marked ``raises-exception``.
    """
    import nbformat
    from nbclient import NotebookClient

    before = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    old = [cell.get("outputs", []) for cell in notebook.cells]
    with tempfile.TemporaryDirectory(prefix="wsmonitor-notebooks-") as home:
        client = NotebookClient(
            notebook,
            timeout=PATIENCE,
            coalesce_streams=True,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(env=environment(Path(home)))
    for cell, was in zip(notebook.cells, old, strict=True):
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "data" in output:
                output.data.pop(WIDGET, None)
                output.metadata = nbformat.from_dict({})
        if not anew and sanitized(cell.get("outputs", [])) == sanitized(was):
            cell["outputs"] = was  # the same but for times and ids: no reason for a change
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.pop("outputs", None)
    nbformat.validate(notebook)
    after = json.dumps(_lines(notebook), indent=1, ensure_ascii=False) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def _lines(notebook: Any) -> Any:
    """The notebook with its texts as lists of lines, as Jupyter writes them."""
    from nbformat.v4 import writes

    return json.loads(writes(notebook))


def main(argv: Sequence[str]) -> int:
    """``renew``, ``anew`` or ``check``, and the tutorials' names: all of them by default."""
    if not argv or argv[0] not in ("renew", "anew", "check"):
        print(__doc__)
        return 2
    names = list(argv[1:]) or tutorials.names()
    paths = [
        FOLDER / name if name.endswith(".ipynb") else next(FOLDER.glob(f"{name}*.ipynb")) for name in names
    ]
    if argv[0] == "check":
        return check(paths)
    for path in paths:
        print(path.name, "renewed" if renew(path, anew=argv[0] == "anew") else "is as it was", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
