"""The tutorial notebooks: in a wheel beside this file, in a checkout under ``notebooks/``.

::

    python -m wsmonitor.notebook.tutorials                    # the tutorials there are
    python -m wsmonitor.notebook.tutorials --copy FOLDER      # copies of them, to work with
    python -m wsmonitor.notebook.tutorials --sanitize-file    # the path of the file for nbval
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def folders() -> tuple[Path, Path]:
    """Where notebooks may be."""
    here = Path(__file__).parent
    return here / "_tutorials", here.parent.parent / "notebooks"


def path(name: str) -> Path:
    """The master copy of a tutorial, for example ``01-first-session.ipynb``. Copy it, do not edit it.

    Raises:
        FileNotFoundError: there is no such tutorial; the message names those there are.
    """
    for folder in folders():
        if (folder / name).is_file() and Path(name).name == name:
            return folder / name
    raise FileNotFoundError(f"no tutorial {name!r}; there are: {', '.join(names()) or 'none'}")


def names() -> list[str]:
    """The tutorials there are."""
    return sorted({file.name for folder in folders() for file in folder.glob("[0-9]*.ipynb")})


def copy(folder: Path) -> list[Path]:
    """Copy all tutorials into *folder*, which is made if need be; the copies. A file that is there stays.

    Raises:
        OSError: the folder cannot be made, or not be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for name in names():
        target = folder / name
        if not target.exists():
            shutil.copyfile(path(name), target)
            copies.append(target)
    return copies


def main(argv: Sequence[str] | None = None) -> int:
    """List or copy the tutorials, or tell where the sanitize file is; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m wsmonitor.notebook.tutorials", description="The tutorials that come with wsmonitor."
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--copy", metavar="FOLDER", type=Path, help="copy them into this folder")
    chosen.add_argument(
        "--sanitize-file", action="store_true", help="the file for `pytest --nbval --nbval-sanitize-with`"
    )
    options = parser.parse_args(argv)
    if options.sanitize_file:
        from .trace import sanitize_file

        lines = [str(sanitize_file())]
    elif options.copy is not None:
        try:
            lines = [str(made) for made in copy(options.copy)]
        except OSError as exc:
            parser.exit(1, f"the tutorials cannot be copied to {options.copy}: {exc}\n")
        lines = lines or [f"they are all in {options.copy} already"]
    else:
        lines = [str(path(name)) for name in names()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
