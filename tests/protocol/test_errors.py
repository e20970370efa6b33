"""errors: the catalogue is complete and the classes are what people catch."""

from __future__ import annotations

import inspect

import pytest

from wsmonitor.protocol import errors
from wsmonitor.protocol.entities import ErrorInfo

ROOT_ONLY = {errors.Cancelled, errors.Rejected}


def _classes() -> list[type[BaseException]]:
    return [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, BaseException) and cls.__module__ == errors.__name__
    ]


def test_every_class_stands_in_the_hierarchy_of_the_docstring() -> None:
    assert errors.__doc__
    for cls in _classes():
        assert cls.__name__ in errors.__doc__


def test_all_but_the_two_signals_have_one_base() -> None:
    for cls in _classes():
        assert issubclass(cls, errors.WsMonitorError) == (cls not in ROOT_ONLY)


def test_a_cancellation_passes_through_except_exception() -> None:
    for signal in ROOT_ONLY:
        assert issubclass(signal, BaseException)
        assert not issubclass(signal, Exception)


def test_the_catalogue_has_a_sentence_for_each_code() -> None:
    for code, entry in errors.CATALOGUE.items():
        assert code == code.lower()
        assert entry.meaning.endswith(".")
        assert entry.http_status == 0 or 400 <= entry.http_status < 600


def test_a_class_carries_a_code_of_the_catalogue() -> None:
    for cls in _classes():
        code = getattr(cls, "code", None)
        assert not isinstance(code, str) or code in errors.CATALOGUE


def test_a_refused_request_carries_the_servers_words() -> None:
    error = errors.RequestError(ErrorInfo(code="gone", message="no longer kept"))
    assert error.code == "gone"
    assert error.info.message == "no longer kept"
    assert "no longer kept" in str(error)
    assert "gone" in str(error)


def test_facts_are_attributes() -> None:
    order = errors.OutOfOrderError(("e", 3), ("e", 5))
    assert order.expected == ("e", 3)
    assert order.got == ("e", 5)
    failed = errors.SessionFailed("etl~1", "crashed", "out of memory")
    assert (failed.session_id, failed.state) == ("etl~1", "crashed")
    assert "out of memory" in str(failed)
    protocol = errors.ProtocolError("bad_json", "no", request=4, fatal=True)
    assert (protocol.code, protocol.request, protocol.fatal) == ("bad_json", 4, True)
    gone = errors.ConnectionFailedError("unauthorized", "no")
    assert gone.code == "unauthorized"
    assert issubclass(errors.WaitTimeoutError, TimeoutError)
    with pytest.raises(ValueError, match="bad"):
        raise errors.InvalidIdError("bad")


def test_what_errors_say() -> None:
    assert str(errors.OutOfOrderError(("e", 3), ("f", 4))) == "expected e:3, got f:4"
    assert str(errors.SessionFailed("s~1", "failed")) == "session 's~1' ended as failed"
    assert str(errors.SessionFailed("s~1", "failed", "a disk")) == "session 's~1' ended as failed: a disk"
    assert str(errors.ConnectionFailedError("unauthorized", "no token")) == "no token"
