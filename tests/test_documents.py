"""The README's commands, and links between documents, hold."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import wsmonitor as wm
from wsmonitor.client import Target
from wsmonitor.notebook.snapshot import COLUMNS
from wsmonitor_server.config import ServerConfig, load
from wsmonitor_server.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[1]
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m tests"
MAIN_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[lab]' && .venv/bin/wsmonitor demo"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_readme_has_the_two_commands_and_ci_runs_the_very_same() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TEST_COMMAND in readme
    assert MAIN_COMMAND in readme
    script = ROOT / ".ci" / "run"
    assert TEST_COMMAND in script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path) if path else document
        assert place.exists(), f"{document.name} links to {target}"
        if anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document.name} links to {target}"


def test_the_how_to_for_tests_is_one_that_passes() -> None:
    text = (ROOT / "docs/how-to/server-in-tests.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "server-in-tests.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_program_that_watches_is_one_that_runs() -> None:
    text = (ROOT / "docs/reference/watching.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = next(block for block in blocks if "async def last_words" in block)
    exec(compile(program, "watching.md", "exec"), names)
    with EmbeddedServer.in_thread() as server:
        where = {"url": server.url, "token": server.token()}
        with wm.session("documents", **where) as session, session.chain("c") as chain, chain.step("s"):
            pass
        seen = asyncio.run(asyncio.wait_for(names["last_words"](session.id, Target(**where)), 20))
    assert seen[0] == "synced"


def test_the_reference_of_watching_has_every_trait_and_column() -> None:
    text = (ROOT / "docs/reference/watching.md").read_text(encoding="utf-8")
    traits = {name for name in wm.Observer.class_own_traits() if not name.startswith("_")}
    assert {"session", "state"} <= traits
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert traits <= told
    assert " ".join(COLUMNS) in text


def test_the_reference_has_every_setting_with_its_default(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    shown, changed, shared = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    table = tomllib.loads(shown)
    names = set(ServerConfig.__struct_fields__) - {"timing", "limits"}
    assert set(table) == names
    assert set(table["auth"]) == set(ServerConfig().auth.__struct_fields__)
    assert set(table["retention"]) == set(ServerConfig().retention.__struct_fields__)
    assert set(table["tenant_limits"]) == set(ServerConfig().tenant_limits.__struct_fields__)
    (tmp_path / "server.toml").write_text(shown, encoding="utf-8")
    assert load(tmp_path / "server.toml", {}) == ServerConfig(store="memory")
    (tmp_path / "server.toml").write_text(changed, encoding="utf-8")
    assert load(tmp_path / "server.toml", {}).limits.history_events == 5000
    (tmp_path / "server.toml").write_text(shared, encoding="utf-8")
    tenants = load(tmp_path / "server.toml", {}).tenants
    assert (tenants["acme"].connections, tenants["acme"].event_rate) == (5000, 2000.0)
    assert (tenants[""].connections, tenants[""].event_rate) == (50, 2000.0)


def test_the_reference_has_every_variable() -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    sources = [path for folder in ("wsmonitor", "server") for path in (ROOT / folder).rglob("*.py")]
    used = {name for path in sources for name in re.findall(r'"(WSMONITOR_[A-Z]+)"', path.read_text("utf-8"))}
    # What `watch --on` hands to its command is in the reference of the command line.
    handed_on = {"WSMONITOR_STATE"}
    assert used - handed_on == set(re.findall(r"^\| `(WSMONITOR_\w+)`", text, re.MULTILINE))


def test_the_checks_table_names_all_fourteen() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\(tests/checks/(test_check_\d\d_\w+\.py)\)", readme)
    assert [name[11:13] for name in linked] == [f"{number:02}" for number in range(1, 15)]
