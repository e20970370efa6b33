"""The head of a frame: link, session, commands and alarms, as the front-end draws them. Pure.

`view` describes the format; each function here makes one part of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from wsmonitor.client.types import ConnectionStatus
from wsmonitor.protocol.access import ROLES
from wsmonitor.protocol.entities import Chain, Command, CommandSpec, Problem, Producer, Session, Step
from wsmonitor.protocol.states import TERMINAL

from .rows import BROKEN, Rows, failure_line, milliseconds, one_line, same_failure

Frame: TypeAlias = dict[str, Any]

_encode = msgspec.json.Encoder().encode

HEAD_BYTES: Final = 64_000  # as JSON
ALARM_LIMIT: Final = 3
ASKED_LIMIT: Final = 20
OFFER_LIMIT: Final = 40
ARGUMENT_LIMIT: Final = 12
CHOICE_LIMIT: Final = 30
METRIC_LIMIT: Final = 64
_DETAIL: Final = 12_000  # characters of a traceback


def session_head(session: Session) -> Frame:
    """The part ``session``."""
    head: Frame = {
        "id": session.id,
        "name": session.name,
        "run": session.run,
        "state": session.state,
        "reason": one_line(session.reason),
        "start": milliseconds(session.started) or milliseconds(session.created),
        "end": milliseconds(session.ended),
        "error": failure_line(session.error),
    }
    if session.progress is not None:
        head |= {
            "done": session.progress.done,
            "total": session.progress.total,
            "unit": one_line(session.progress.unit, 20),
        }
    return head


def link_head(status: ConnectionStatus, of: Callable[[float | None], int | None]) -> Frame:
    """The part ``link``. *of* turns a time of the monotonic clock into one of the frame's."""
    covers = [one_line(pattern, 80) for pattern in status.welcome.sessions[:12]] if status.welcome else []
    return {
        "phase": status.phase,
        "attempt": status.attempt,
        "next": of(status.next_attempt_at),
        "code": status.code,
        "reason": one_line(status.reason, 400),
        "lost": of(status.lost_at),
        "since": of(status.connected_at),
        "url": one_line(status.url or "", 300),
        "looked": [one_line(place, 300) for place in status.looked[:12]],
        "quiet": round((status.welcome.quiet_after if status.welcome else 3.0) * 1000),
        "covers": [] if covers == ["*"] else covers,
        "degraded": None
        if status.degraded is None
        else {
            "code": one_line(status.degraded.code, 40),
            "reason": one_line(status.degraded.reason, 200),
            "since": milliseconds(status.degraded.since),
        },
    }


def producers_head(producers: Iterable[Producer]) -> list[Frame]:
    """The part ``producers``: those that are open first."""
    chosen = sorted(producers, key=lambda producer: producer.closed)[:20]
    return [
        {
            "id": producer.id,
            "agent": one_line(producer.agent, 80),
            "liveness": producer.liveness,
            "since": milliseconds(producer.since),
            "closed": producer.closed,
        }
        for producer in chosen
    ]


def metrics_head(session: Session | None) -> Frame:
    """The part ``metrics``."""
    if session is None:
        return {}
    return {one_line(name, 80): number for name, number in list(session.metrics.items())[:METRIC_LIMIT]}


def bounded(head: Frame) -> Frame:
    """*head*, without what can be spared if it is too large: hardly ever, and then for the longest texts."""
    if len(_encode(head)) <= HEAD_BYTES:
        return head
    shorter = {
        **head,
        "alarms": [{**alarm, "detail": alarm["detail"][-2_000:]} for alarm in head["alarms"]],
        "asked": head["asked"][:6],
        "producers": head["producers"][:6],
        "metrics": dict(list(head["metrics"].items())[:16]),
        "watching": head["watching"] and {**head["watching"], "names": head["watching"]["names"][:10]},
    }
    if len(_encode(shorter)) <= HEAD_BYTES:
        return shorter
    return {
        **shorter,
        "link": {**head["link"], "looked": head["link"]["looked"][:3]},
        "offers": [{**offer, "args": []} for offer in head["offers"][:8]],
        "alarms": [{**alarm, "detail": ""} for alarm in head["alarms"][:2]],
        "alarms_more": head["alarms_more"] + len(head["alarms"][2:]),
        "asked": head["asked"][:3],
        "producers": head["producers"][:3],
    }


# ---------------------------------------------------------------------- commands


def offers(session: Session | None) -> list[Frame]:
    """The part ``offers``: the commands that the session takes."""
    return [] if session is None else [_offer(spec) for spec in session.commands[:OFFER_LIMIT]]


def _offer(spec: CommandSpec) -> Frame:
    return {
        "name": spec.name,
        "targets": list(spec.targets),
        "args": [
            {
                "name": argument.name,
                "type": argument.type,
                "required": argument.required,
                "choices": [one_line(choice, 120) for choice in argument.choices[:CHOICE_LIMIT]],
                "description": one_line(argument.description),
            }
            for argument in spec.args[:ARGUMENT_LIMIT]
        ],
        "destructive": spec.destructive,
        "description": one_line(spec.description),
    }


def may_not(status: ConnectionStatus, phase: str, session: Session | None) -> str:
    """The part ``may``: why this observer cannot command now, in words; "" when it can."""
    role = status.welcome.role if status.welcome is not None else ""
    if role and "command" not in ROLES.get(role, ()):
        return f"your token has the role {role!r}: commanding needs {'command'!r}"
    if status.phase == "failed":
        return "there is no link to the server"
    if not status.live:
        return "the link to the server is down"
    if status.degraded is not None:
        return f"the server takes no changes at present: {status.degraded.reason or status.degraded.code}"
    if phase == "not_available":
        return "the session is not available"
    if session is None:
        return "there is no session yet"
    if phase == "syncing":
        return "the state is being verified"
    if session.state in TERMINAL:
        return "the session has ended"
    if not session.commands:
        return "this session takes no commands"
    return ""


def asked(commands: Iterable[Command], rows: Rows, session: Session | None) -> list[Frame]:
    """The part ``asked``: the newest commands' records, the newest first."""
    newest = heapq.nlargest(ASKED_LIMIT, commands, key=lambda command: (int(command.requested), command.id))
    return [command_record(command, *target_words(command, rows, session)) for command in newest]


def target_words(command: Command, rows: Rows, session: Session | None) -> tuple[str, str]:
    """Which row a command is for ("" for the session), and what it is called."""
    if command.step:
        row = rows.row_of(command.step)
        step = rows.newest(row) if row else None
        return row, one_line(step.name if step is not None else command.step, 120)
    if command.chain:
        chain = rows.chain(f"c:{command.chain}")
        return (f"c:{command.chain}" if chain else ""), one_line(chain.name if chain else command.chain, 120)
    return "", session.name if session is not None else ""


def command_record(command: Command, row: str, target: str) -> Frame:
    """One item of ``asked``."""
    return {
        "id": command.id,
        "name": command.name,
        "row": row,
        "target": target,
        "state": command.state,
        "who": one_line(command.actor, 80),
        "via": one_line(command.via, 80),
        "reason": one_line(command.reason),
        "at": milliseconds(command.requested),
        "took": (int(command.ended) - int(command.requested)) // 1_000_000 if command.ended else None,
    }


# ---------------------------------------------------------------------- alarms


def alarms(session: Session | None, rows: Rows, problems: Iterable[Problem]) -> tuple[list[Frame], int]:
    """The part ``alarms``, and how many there are besides."""
    found: list[Frame] = []
    count = 0
    causes, besides = rows.causes()
    if session is not None and session.error is not None and session.state in BROKEN:
        count += 1
        # The step that brought the session down is not another alarm, but where this one leads to.
        cause = next((item for item in causes if same_failure(item[1].error, session.error)), None)
        traceback = session.error.traceback
        if cause is not None:
            causes.remove(cause)
            traceback = traceback or (cause[1].error.traceback if cause[1].error else "")
        found.append(
            {
                "row": "" if cause is None else cause[0],
                "name": session.name,
                "where": one_line(session.reason) if cause is None else rows.path(cause[1]),
                "text": f"{session.state}: {failure_line(session.error)}",
                "at": milliseconds(session.ended),
                "detail": traceback[-_DETAIL:],
            }
        )
    for row_id, step in causes:
        count += 1
        if len(found) < ALARM_LIMIT:
            error = step.error
            reason = failure_line(error) or one_line(step.reason)
            found.append(
                {
                    "row": row_id,
                    "name": step.name,
                    "where": rows.path(step),
                    "text": f"{step.state}: {reason}" if reason else step.state,
                    "at": milliseconds(step.ended),
                    "detail": error.traceback[-_DETAIL:] if error is not None else "",
                }
            )
    for problem in problems:
        if problem.severity in ("info", "warning"):
            continue
        count += 1
        if len(found) < ALARM_LIMIT:
            found.append(
                {
                    "row": "",
                    "name": problem.code,
                    "where": "",
                    "text": one_line(problem.message),
                    "at": milliseconds(problem.at),
                    "detail": "",
                }
            )
    return found, count + besides - len(found)


# ---------------------------------------------------------------------- words for the log


def state_words(entity: Session | Chain | Step) -> tuple[str, str]:
    """Tone and words of a state change, for the log."""
    if entity.state in BROKEN:
        reason = failure_line(entity.error) or one_line(entity.reason)
        return "bad", f"{entity.state}: {reason}" if reason else entity.state
    text = entity.state.replace("_", " ")
    if isinstance(entity, Step) and entity.attempt > 1:
        text += f", attempt {entity.attempt}"
    if entity.reason:
        text += f": {one_line(entity.reason)}"
    tone = "good" if entity.state == "succeeded" and isinstance(entity, Session) else "plain"
    return tone, text
