"""``python -m tests.coverage``: branch coverage of each pure module by its own test file; it has to be whole.

The pure modules are those of pyproject's contract. What another file's tests run of a module does not count
for it: a module's rules are to be found, and to fail, in one place. Which file that is says `own_tests`.
Tests that draw their examples are left out: which branches they run is another matter each time.

One run of pytest for all: a context per test file, and one for what importing a module runs. A stage of
``python -m tests --all``: it fails where a branch is not run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import pkgutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = "imported"

FOLDERS = {
    "wsmonitor.protocol": ("protocol",),
    "wsmonitor.client": ("client",),
    "wsmonitor.export": ("export",),
    "wsmonitor.notebook": ("notebook",),
    "wsmonitor.publish": ("publish",),
    "wsmonitor_server": ("server", "server_front"),
}
"""Where a package's tests are."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "wsmonitor.protocol.changes": ("protocol/test_messages",),
    "wsmonitor.protocol.entities": ("protocol/test_messages",),
    "wsmonitor.client.actions": ("client/test_link",),
    "wsmonitor.client.clock": ("client/test_link",),
    "wsmonitor.client.entries": ("client/test_publication",),
    "wsmonitor.client.pacer": ("client/test_publication",),
    "wsmonitor.client.core": ("client/test_core", "client/test_core_exactly"),
    "wsmonitor.client.link": ("client/test_link", "client/test_link_exactly"),
    "wsmonitor.client.publication": (
        "client/test_publication",
        "client/test_publication_answers",
        "client/test_publication_exactly",
    ),
    "wsmonitor.client.spool": ("client/test_spool", "client/test_spool_exactly"),
    "wsmonitor.client.subscription": (
        "client/test_subscription",
        "client/test_subscription_exactly",
        "client/test_subscription_stages",
    ),
    "wsmonitor.client.types": ("client/test_link", "client/test_life"),
    "wsmonitor.export.cells": ("export/test_notebook",),
    "wsmonitor.export.collecting": ("export/test_outputs",),
    "wsmonitor.export.document": ("export/test_files",),
    "wsmonitor.export.frames": ("export/test_files", "export/test_pieces"),
    "wsmonitor.export.page": ("export/test_files",),
    "wsmonitor.export.recording": ("export/test_notebook",),
    "wsmonitor.export.rendered": ("export/test_files", "export/test_pieces"),
    "wsmonitor.notebook.head": ("notebook/test_head", "notebook/test_view"),
    "wsmonitor.notebook.listings": ("notebook/test_dashboard",),
    "wsmonitor.notebook.restore.plan": ("notebook/test_restore",),
    "wsmonitor.notebook.rows": ("notebook/test_rows", "notebook/test_view"),
    "wsmonitor.notebook.view": ("notebook/test_view", "notebook/test_sizes"),
    "wsmonitor_server.authority": (
        "server/test_authority",
        "server/test_authority_exactly",
        "server/test_commands",
        "server/test_model",
    ),
    "wsmonitor_server.deadlines": ("server/test_deadlines", "server/test_directory_exactly"),
    "wsmonitor_server.directory": ("server/test_directory", "server/test_directory_exactly"),
    "wsmonitor_server.facts": (
        "server/test_authority",
        "server/test_commands",
        "server/test_facts",
        "server/test_model",
    ),
    "wsmonitor_server.http": ("server_front/test_handshake", "server_front/test_http"),
    "wsmonitor_server.commands": ("server/test_commands", "server/test_commands_exactly"),
    "wsmonitor_server.hub": (
        "server/test_hub",
        "server/test_sync",
        "server/test_engine",
        "server/test_directory",
        "server/test_values",
    ),
    "wsmonitor_server.compact": ("security/test_authenticator",),
    "wsmonitor_server.joining": (
        "server_front/test_requests",
        "server_front/test_requests_exactly",
        "server_front/test_machine",
    ),
    "wsmonitor_server.ledger": ("server/test_ledger", "server/test_authority"),
    "wsmonitor_server.limiter": ("server_front/test_outbox",),
    "wsmonitor_server.merge": ("server/test_authority", "server/test_merge"),
    "wsmonitor_server.peer": (
        "server_front/test_peer",
        "server_front/test_peer_exactly",
        "server_front/test_machine",
    ),
    "wsmonitor_server.ports": ("server/test_sync",),
    "wsmonitor_server.replies": (
        "server/test_replies",
        "server/test_directory",
        "server/test_directory_exactly",
        "server_front/test_requests_exactly",
    ),
    "wsmonitor_server.requests": (
        "server_front/test_requests",
        "server_front/test_requests_exactly",
        "server_front/test_machine",
    ),
    "wsmonitor_server.retention": ("server/test_directory", "server/test_directory_exactly"),
    "wsmonitor_server.snapshot": ("server/test_sync", "server/test_sync_exactly", "server/test_sync_frames"),
    "wsmonitor_server.stores.redis.address": ("server/test_redis_address",),
    "wsmonitor_server.stores.redis.instance": ("server/test_redis_instance",),
    "wsmonitor_server.stores.redis.records": ("server/test_redis_records",),
    "wsmonitor_server.stores.redis.scripts": ("server/test_redis_records",),
    "wsmonitor_server.subscription": ("server_front/test_subscription", "server_front/test_straight"),
    "wsmonitor_server.sync": (
        "server/test_sync",
        "server/test_sync_exactly",
        "server/test_sync_frames",
        "server/test_engine",
        "server/test_model",
    ),
}
"""Modules whose home among the tests has another name, or two rooms: what it does for some is seen only in
what several modules make up together."""

GENERATED = frozenset({"wsmonitor.protocol.asyncapi", "wsmonitor.protocol.reference"})


def pure_modules() -> list[str]:
    """The modules of the contract, those of its packages among them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "forbidden"]
    found = []
    for name in contract["source_modules"]:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            places = spec.submodule_search_locations
            found += [f"{name}.{one.name}" for one in pkgutil.iter_modules(places)]
        else:
            found.append(name)
    return found


def own_tests(module: str) -> tuple[str, ...]:
    """The test files of *module*, relative to the root; none if there are none."""
    if module in ELSEWHERE:
        return tuple(f"tests/{path}.py" for path in ELSEWHERE[module])
    name = module.rpartition(".")[2]
    for package, folders in FOLDERS.items():
        if module.startswith(f"{package}."):
            for folder in folders:
                path = f"tests/{folder}/test_{name}.py"
                if (ROOT / path).exists():
                    return (path,)
    return ()


class _Contexts:
    """Tells coverage whose turn it is: the test file's. Tests that draw their examples are left out."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        drawing = [item for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
        config.hook.pytest_deselected(items=drawing)
        items[:] = [item for item in items if item not in drawing]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measured.switch_context(Path(item.path).relative_to(ROOT).as_posix())
        result = yield
        self._measured.switch_context("between")
        return result  # type: ignore[return-value]


def measure(wanted: Sequence[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the tests of the pure modules whose names end in one of *wanted* (all, if there is none).

    Returns:
        pytest's exit status, and by module what coverage says of its file.
    """
    files: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="wsmonitor-coverage-") as folder:
        measured = coverage.Coverage(
            data_file=str(Path(folder) / "data"),
            branch=True,
            include=[str(ROOT / "wsmonitor" / "*"), str(ROOT / "server" / "*")],
        )
        # Before anything of ours is imported: that is to be seen, too.
        measured.start()
        measured.switch_context(IMPORTED)
        modules = [
            module
            for module in pure_modules()
            if module not in GENERATED and (not wanted or module.endswith(tuple(wanted)))
        ]
        for module in modules:
            importlib.import_module(module)
        measured.switch_context("between")
        tests = sorted({path for module in modules for path in own_tests(module)})
        status = int(pytest.main(["-q", "-m", "not slow", *tests], plugins=[_Contexts(measured)]))
        measured.stop()
        for module in modules:
            report = Path(folder) / "report.json"
            contexts = [f"^{name}$" for name in (IMPORTED, *own_tests(module))]
            path = sys.modules[module].__file__
            measured.json_report(morfs=[path], outfile=str(report), contexts=contexts)
            [files[module]] = json.loads(report.read_text("utf-8"))["files"].values()
    return status, files


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 1 where something is missing or a test failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.coverage", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("module", nargs="*", help="some modules, by the end of their name; all by default")
    options = parser.parse_args(argv)
    status, files = measure(options.module)
    whole = 0
    print()
    for module, found in files.items():
        summary, tests = found["summary"], own_tests(module)
        missing = [f"line {line}" for line in found["missing_lines"]]
        missing += [f"{a}->{'end' if b < 0 else b}" for a, b in found["missing_branches"]]
        if not tests:
            missing.insert(0, "it has no test file of its own")
        whole += not missing
        if missing:
            print(
                f"{module:<40} {summary['percent_covered']:6.1f} %  {' '.join(tests)}  {', '.join(missing)}"
            )
    print(f"{whole} of {len(files)} modules are covered whole, each by its own test file")
    return 1 if status or whole < len(files) else 0


if __name__ == "__main__":
    sys.exit(main())
