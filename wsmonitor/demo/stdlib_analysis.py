"""An analysis of the standard library's own source, published as it goes.

One chain per package, two at a time; in each the steps ``read``, ``parse``, ``measure``, ``rank``. A last
chain takes the files that are known to be difficult: those that are not UTF-8 (read again with the encoding
that they declare, as a second attempt) and those that are not valid Python (whose steps fail, with the real
error).
"""

from __future__ import annotations

import ast
import io
import sysconfig
import time
import tokenize
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import wsmonitor as wm

from .measures import FileFacts, coverage, measure, rank
from .pace import Pace

PACKAGES: Final = ("email", "json", "asyncio", "http", "xml", "unittest", "logging", "importlib")
DIFFICULT: Final = (
    "test/tokenizedata/bad*.py",
    "test/encoded_modules/module_*.py",
    "lib2to3/tests/data/*.py",
    "test/badsyntax_*.py",
    # Where Python is installed without its tests: text that is no Python.
    "idlelib/*.txt",
    "lib2to3/*.txt",
    "pydoc_data/*.css",
)
Row = dict[str, Any]
MAX_DIFFICULT: Final = 12
WORKERS: Final = 2
TREE_SIZE: Final = 3_000_000
"""Characters of syntax tree from which on no more modules are written out."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be analysed: packages, and difficult files."""

    packages: dict[str, tuple[Path, ...]]
    difficult: tuple[Path, ...]
    root: Path

    @property
    def units(self) -> int:
        """Pieces of work: each file is read, parsed and measured."""
        return 3 * sum(len(files) for files in self.packages.values()) + 2 * len(self.difficult)


def find(root: Path | None = None, packages: Sequence[str] = PACKAGES) -> Work:
    """The files to analyse, in a fixed order.

    Args:
        root: the standard library's folder; that of this Python by default.
        packages: which packages; those that this Python does not have are left out.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    found = {}
    for name in packages:
        files = tuple(sorted(path for path in (root / name).rglob("*.py") if "test" not in path.parts))
        if files:
            found[name] = files
    difficult: list[Path] = []
    for pattern in DIFFICULT:
        difficult += sorted(root.glob(pattern))
    return Work(found, tuple(difficult[:MAX_DIFFICULT]), root)


def run(
    name: str = "stdlib-analysis",
    *,
    seconds: float = 0.0,
    work: Work | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> list[Row]:
    """Analyse and publish. Returns the summary: one row per package, the same for the same source.

    Args:
        name: the session's name.
        seconds: how long it should last, at least; 0 for as fast as can be.
        work: what to analyse; the default is `find`'s.
        clock: monotonic seconds.
        options: of `wsmonitor.session`.

    Raises:
        Cancelled: somebody cancelled the session.
    """
    work = work or find()
    pace = Pace(seconds, work.units, clock)
    with warnings.catch_warnings():
        # Old source has escapes that newer Pythons warn of when they parse it.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        with wm.session(name, kind="analysis", tags=["demo"], **options) as session:
            session.input = {
                "python": sysconfig.get_python_version(),
                "packages": {package: len(files) for package, files in work.packages.items()},
                "difficult files": len(work.difficult),
            }
            session.on("hurry", pace.hurry, description="Stop repeating the work: finish as fast as can be.")
            summary = _analyse(session, work, pace)
            session.output = summary
            session.metrics.update(
                packages=len(summary),
                files=sum(row["files"] for row in summary),
                lines=sum(row["lines"] for row in summary),
                functions=sum(row["functions"] for row in summary),
            )
    return summary


def _analyse(session: wm.Session, work: Work, pace: Pace) -> list[Row]:
    chains = {name: session.chain(name, kind="package").announce() for name in work.packages}
    last = session.chain("difficult files", kind="package").announce() if work.difficult else None

    def package(name: str) -> Row | None:
        analyse = partial(_package, chains[name], work.packages[name], work.root, pace)
        return _unless_cancelled(session, analyse)

    rows: list[Row] = []
    done = 0
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="analysis") as pool:
        for row in pool.map(package, work.packages):
            done += 1
            session.progress(done, len(work.packages) + (last is not None), "packages")
            if row is not None:
                rows.append(row)
    if last is not None:
        _unless_cancelled(session, lambda: _difficult(session, last, work.difficult, work.root, pace))
        session.progress(done + 1, done + 1, "packages")
    return sorted(rows, key=lambda row: str(row["package"]))


def _unless_cancelled(session: wm.Session, work: Callable[[], Row]) -> Row | None:
    """Do *work*; if its chain or step alone was cancelled, go on with the next."""
    try:
        return work()
    except wm.Cancelled:
        session.checkpoint()  # raises again if the whole session is meant
        return None


def _package(chain: wm.Chain, files: Sequence[Path], root: Path, pace: Pace) -> Row:
    name = chain.name
    with chain:
        with chain.step("read", input={"package": name, "files": len(files)}) as step:
            sources = {}
            for path in step.track(files, unit="files"):
                sources[_short(path, root)] = pace.unit(partial(path.read_text, encoding="utf-8"))
            step.metric("characters", sum(len(source) for source in sources.values()))
            step.output = {file: len(source) for file, source in sources.items()}

        with chain.step("parse") as step:
            trees = {}
            for file in step.track(sources, unit="files"):
                trees[file] = pace.unit(partial(ast.parse, sources[file], file))
            step.metric("nodes", sum(1 for tree in trees.values() for _ in ast.walk(tree)))
            if name == "asyncio":
                step.output = _syntax_trees(trees)

        with chain.step("measure") as step:
            facts: list[FileFacts] = []
            for file in step.track(trees, unit="files"):
                facts.append(pace.unit(partial(measure, file, sources[file], trees[file])))
            functions = [function for file in facts for function in file.functions]
            step.metrics.update(functions=len(functions), classes=sum(item.classes for item in facts))
            step.output = [asdict(function) for function in functions]

        with chain.step("rank") as step:
            worst = rank(facts)
            step.output = [f"{item.complexity:>3}  {item.file}:{item.line}  {item.name}" for item in worst]
            if worst:
                first = worst[0]
                step.log(f"most complex: {first.name} in {first.file}, {first.complexity} ways through")

        row = {
            "package": name,
            "files": len(facts),
            "lines": sum(item.lines for item in facts),
            "functions": len(functions),
            "documented %": coverage(functions),
            "most complex": worst[0].name if worst else "",
            "complexity": worst[0].complexity if worst else 0,
        }
        chain.metrics.update(
            {key: value for key, value in row.items() if isinstance(value, (int, float))},
        )
        chain.output = row
    return row


def _syntax_trees(trees: dict[str, ast.Module]) -> str:
    """Modules' syntax trees as text: some megabytes."""
    parts, size = [], 0
    for file, tree in trees.items():
        parts.append(f"# {file}\n{ast.dump(tree, indent=1)}\n")
        size += len(parts[-1])
        if size > TREE_SIZE:
            break
    return "".join(parts)


@wm.step(name="decode", retries=1)
def decode(path: Path, root: Path, pace: Pace) -> str:
    """A file's text: first as UTF-8, as most are; at the second attempt, as the file itself declares."""
    data = pace.unit(path.read_bytes)
    step = wm.current_step()
    if step is not None:
        step.input = _short(path, root)
    if step is None or step.attempt == 1:
        return data.decode("utf-8-sig")
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    step.attributes["encoding"] = encoding
    return data.decode(encoding)


@wm.step(name="parse file", retryable=True)
def parse(file: str, source: str, pace: Pace) -> ast.Module:
    """A file's syntax tree. Fails for what is not Python."""
    step = wm.current_step()
    if step is not None:
        step.input = file
    return pace.unit(lambda: ast.parse(source, file))


def _difficult(session: wm.Session, chain: wm.Chain, files: Sequence[Path], root: Path, pace: Pace) -> Row:
    with chain:
        sources: dict[str, str] = {}
        broken: dict[str, str] = {}
        with chain.step("read", input={"files": len(files)}) as step:
            for path in step.track(files, unit="files"):
                try:
                    sources[_short(path, root)] = decode(path, root, pace)
                except (UnicodeDecodeError, SyntaxError) as exc:
                    broken[_short(path, root)] = str(exc)
                    step.log(f"{_short(path, root)}: {exc}", "warning")
            step.metrics.update(read=len(sources), unreadable=len(broken))

        with chain.step("parse") as step:
            for file, source in step.track(sources.items(), unit="files"):
                try:
                    parse(file, source, pace)
                except (SyntaxError, ValueError) as exc:
                    broken[file] = f"{type(exc).__name__}: {exc}"
                    step.log(f"{file}: {exc}", "warning")
            step.metrics.update(parsed=len(files) - len(broken), broken=len(broken))
            step.output = broken
        result = {"files": len(files), "broken": len(broken)}
        chain.output = result
        if broken:
            message = f"{len(broken)} of {len(files)} difficult files are not valid Python"
            session.error(message, severity="warning")
    return result


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
