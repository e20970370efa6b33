"""docs/reference/cli.md tells every command, option, exit status and JSON line that there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.export.samples import etl
from wsmonitor.cli import lines
from wsmonitor.cli.app import COMMANDS, commands
from wsmonitor.cli.failures import Exit
from wsmonitor.client.types import (
    ConnectionStatus,
    EventApplied,
    GapFound,
    PhaseChanged,
    PresenceChanged,
    SyncCompleted,
)
from wsmonitor.export import Origin
from wsmonitor.export.document import document
from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.messages import Event

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
COMMON = {"--url", "--insecure", "--token", "--token-file", "--ca", "--json", "--timeout", "--help"}


def _section(name: str) -> str:
    found = re.search(rf"^## [^\n]*\b{name}\b.*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[0]


def _commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = commands.get_command(click.Context(commands), name)
        assert command is not None
        below = command.commands.values() if isinstance(command, click.Group) else [command]
        found += [(name, one) for one in below]
    return found


@pytest.mark.parametrize(("name", "command"), _commands(), ids=lambda value: getattr(value, "name", value))
def test_every_option_is_told(name: str, command: click.Command) -> None:
    section = _section(name)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            long = next(option for option in parameter.opts if option.startswith("--"))
            assert f"{long}" in (TEXT if long in COMMON else section), f"{name} {long}"


def test_every_exit_status_is_told() -> None:
    for status in Exit:
        assert f"\n| {status.value} | " in TEXT


def test_every_json_line_is_told_with_its_fields() -> None:
    raw = encode_record(Step(id="s", chain="c", name="n"))
    event = Event(topic="s", epoch="e", seq=1, ts="1", kind="step", entity=raw)
    told = [
        lines.connection(ConnectionStatus(), 0.0, 0),
        lines.run("s", 1, 0),
        lines.synced("s", etl(), SyncCompleted("e", 1, None, ""), 0),
        *lines.updates("s", EventApplied(event, None), 0),
        *lines.updates("s", GapFound(1, 2), 0),
        *lines.updates("s", PhaseChanged("live"), 0),
        *lines.updates("s", PresenceChanged(1, ()), 0),
    ]
    assert len(told) == 7
    for line in told:
        row = re.search(rf"^\| `{line['type']}` \|.*$", TEXT, re.MULTILINE)
        assert row is not None, line["type"]
        assert {f"`{field}`" for field in line if field not in ("type", "at")} <= set(
            re.findall(r"`\w+`", row[0])
        )


def test_every_field_of_the_exported_document_is_told() -> None:
    section = _section("export")
    exported = document(etl(), Origin(exported="1", as_of="1"))
    for field in [*exported, *exported["origin"], *exported["position"]]:
        assert f"`{field}`" in section, field
