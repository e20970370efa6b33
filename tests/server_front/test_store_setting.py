"""The setting `store`: what is meant is guessed, what is secret is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.config import load


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("Redis://u:hidden@h", "not 'Redis://…' (perhaps redis://…)"),
        ("reddis://u:hidden@h", "not 'reddis://…' (perhaps redis://…)"),
        (" rediss://u:hidden@h", "not ' rediss://…' (perhaps rediss://…)"),
        ("valkey://u:hidden@h", "not 'valkey://…' (perhaps redis://…)"),
        ("valkeys://u:hidden@h", "not 'valkeys://…' (perhaps rediss://…)"),
        ("postgres://u:hidden@h", "not 'postgres://…'"),
        ("redis:u:hidden@h", "not '…'"),
        ("sqllite:x", "not 'sqllite:x'"),
        ("sqlite:", "not 'sqlite:'"),
        ("", "the store is empty: the store has to be `memory`"),
    ],
)
def test_a_wrong_one_is_refused(tmp_path: Path, store: str, words: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'store = "{store}"')
    for given in (lambda: load(None, {"store": store}), lambda: load(file, {})):
        with pytest.raises(ConfigurationError) as caught:
            given()
        assert str(caught.value).endswith(words) or f"{words}, `sqlite" in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_without_one_it_is_memory() -> None:
    assert load(None, {"store": None}).store == ""
