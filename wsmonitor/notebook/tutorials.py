"""The tutorial notebooks: in a wheel beside this file, in a checkout under ``notebooks/``."""

from __future__ import annotations

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
