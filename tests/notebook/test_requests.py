"""What a browser asks is answered once, whatever is said again."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from tests.notebook.samples import T0, nightly, sample_view
from wsmonitor.notebook.details import details
from wsmonitor.notebook.requests import REMEMBERED, WAITING, Answer, Desk, Question, RefusedError, Request
from wsmonitor.notebook.sender import Message
from wsmonitor.notebook.view import Now
from wsmonitor.protocol.errors import UsageError

NOW = Now(1000.0, T0 + 134)


class Office:
    """A desk with questions of a test, and what it sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.done: list[Request] = []
        self.futures: list[Future[Answer]] = []
        questions = {
            "read": Question(self._at_once),
            "do": Question(self._at_once, once=True),
            "later": Question(self._later, once=True),
            "refuse": Question(self._refuse),
            "break": Question(lambda request: 1 / 0),  # type: ignore[arg-type, return-value]
        }
        self.unsent = 0
        self.desk = Desk(questions, self.sent.append, lambda: self.unsent)

    def _at_once(self, request: Request) -> Answer:
        self.done.append(request)
        return Answer({"n": len(self.done)}, [b"bytes"])

    def _later(self, request: Request) -> Future[Answer]:
        self.done.append(request)
        future: Future[Answer] = Future()
        self.futures.append(future)
        return future

    def _refuse(self, request: Request) -> Answer:
        raise RefusedError("gone", "it is no longer kept")

    def ask(self, do: str, ident: str = "1", *, live: bool = True) -> list[Any]:
        """Ask; what was sent since."""
        before = len(self.sent)
        assert self.desk.take({"do": do, "id": ident}, live)
        self.desk.work()
        return [message for message, _ in self.sent[before:]]


def test_what_must_not_be_done_twice_is_done_once_and_its_answer_repeated() -> None:
    office = Office()
    first = office.ask("do")
    assert first == [{"type": "answer", "to": "1", "ok": True, "n": 1}]
    assert office.ask("do") == first
    assert office.ask("do", "2")[0]["n"] == 2
    assert [request["id"] for request in office.done] == ["1", "2"]


def test_what_takes_time_is_begun_once_and_answered_once() -> None:
    office = Office()
    assert office.ask("later") == []
    assert office.ask("later") == [], "its answer is under way"
    office.futures[0].set_result(Answer({"x": 1}))
    assert [message for message, _ in office.sent] == [{"type": "answer", "to": "1", "ok": True, "x": 1}]
    assert office.ask("later")[0]["x"] == 1
    assert len(office.done) == 1


def test_a_failure_is_an_answer_with_code_and_words() -> None:
    office = Office()
    assert office.ask("refuse")[0] == {
        "type": "answer",
        "to": "1",
        "ok": False,
        "code": "gone",
        "text": "it is no longer kept",
    }
    assert office.ask("break", "2")[0]["text"] == "ZeroDivisionError: division by zero"
    assert office.ask("nonsense", "3")[0]["code"] == "unknown_request"
    office.ask("later", "4")
    office.futures[0].set_exception(UsageError("no"))
    assert office.sent[-1][0] | {"text": "no", "code": "bad_message", "ok": False} == office.sent[-1][0]


def test_by_the_comm_it_is_said_that_the_request_came() -> None:
    office = Office()
    assert office.ask("later", live=False) == [{"type": "received", "to": "1"}]
    assert [m["type"] for m in office.ask("read", "2", live=False)] == ["answer"], "no need to"


@pytest.mark.parametrize(
    "request_",
    [{}, {"do": "read"}, {"do": "read", "id": 3}, {"do": 3, "id": "x"}, {"do": "x", "id": "y" * 999}],
)
def test_what_is_no_request_is_no_fault(request_: Request) -> None:
    office = Office()
    assert not office.desk.take(request_, True)
    office.desk.work()
    assert office.sent == []


def test_nothing_grows_without_limit() -> None:
    office = Office()
    for n in range(REMEMBERED * 3):
        office.ask("do", str(n))
    assert len(office.desk._known) == REMEMBERED
    assert len(office.desk._open) == 0
    for n in range(WAITING):
        assert office.desk.take({"do": "read", "id": f"w{n}"}, True)
    assert not office.desk.take({"do": "read", "id": "over"}, True)
    assert office.sent[-1][0]["code"] == "too_many"


def test_answers_that_cannot_be_sent_do_not_pile_up() -> None:
    office = Office()
    for n in range(WAITING):
        assert office.desk.take({"do": "later", "id": f"l{n}"}, True)
    office.desk.work()
    assert len(office.futures) == WAITING
    assert office.desk.take({"do": "read", "id": "next"}, True)
    office.desk.work()
    assert office.sent == [], "so many are under way"
    for future in office.futures:
        future.set_result(Answer({}))
    office.unsent = len(office.sent)
    for n in range(2 * WAITING):
        office.desk.take({"do": "read", "id": f"r{n}"}, True)
        office.desk.work()
    assert len(office.sent) == WAITING, "neither answers nor refusals"
    office.unsent = 0
    office.desk.work()
    assert office.sent[-1][0] == {"type": "answer", "to": f"r{WAITING - 2}", "ok": True, "n": 2 * WAITING}


def test_details_of_a_step_have_its_attempts_and_its_failure() -> None:
    view = sample_view(NOW)
    found = details(view, {"row": "s:p1a"}).body["details"]
    assert (found["id"], found["attempt"], found["state"]) == ("p1b", 2, "succeeded")
    assert [(a["attempt"], a["state"]) for a in found["attempts"]] == [(1, "failed"), (2, "succeeded")]
    assert found["path"] == "load / fetch parts / part-001.parquet"
    earlier = details(view, {"row": "s:p1a", "attempt": 1}).body["details"]
    assert earlier["error"]["type"] == "TimeoutError"
    drift = details(view, {"row": "s:drift"}).body["details"]
    assert "check_drift" in drift["error"]["traceback"]


def test_details_of_the_session_and_of_a_chain() -> None:
    view = sample_view(NOW)
    assert details(view, {"row": ""}).body["details"]["kind"] == "session"
    assert details(view, {"row": "c:load"}).body["details"]["name"] == "load"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"row": "s:none"}, "gone"),
        ({"row": "c:none"}, "gone"),
        ({}, "bad_message"),
        ({"row": 3}, "bad_message"),
    ],
)
def test_details_of_what_is_not_there(request_: Request, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        details(sample_view(NOW), request_)
    assert caught.value.code == code


def test_every_row_of_the_sample_has_details() -> None:
    view = sample_view(NOW)
    view.frame(NOW)
    for row in view.rows.all():
        assert details(view, {"row": row["id"]}).body["details"]["name"] == row["name"]
    assert len(nightly()) > 10
