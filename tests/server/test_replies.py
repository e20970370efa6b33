"""What clients are told of an error."""

from __future__ import annotations

from wsmonitor_server.replies import store_refusal
from wsmonitor_server.stores.base import StoreError


def test_what_a_store_says_is_told_with_its_code_and_the_session() -> None:
    info = store_refusal(StoreError("the disk is full", code="read_only"), "etl~1").info
    assert (info.code, info.message, info.session, info.retryable) == (
        "read_only",
        "the disk is full",
        "etl~1",
        True,
    )
    assert store_refusal(StoreError("it broke"), "").info.code == "store_failed"
