"""The producer's SDK.

========== ====================================================================================
module     holds
========== ====================================================================================
session    `session`, `join`, `Session`: a run, and its life
steps      `Chain`, `Step`, `LogHandler`
work       what these have in common: state, values, metrics, points
decorator  ``@step`` for functions of every kind, and retries
track      progress over an iterable
point      what `checkpoint` and `ask` return: for calling and for awaiting
functions  `checkpoint`, `track`, `log` … for wherever the program is
context    where the program is: one context variable, carried into threads
commands   which commands are offered, and what happens when one arrives
control    pause, cancel, questions: marks, and the points where they take effect
run        what a session's parts share: lock, error lane, ids, clock
node       one session, chain or step with all its fields
channel    coalescing, healing, and what comes back from the server
registry   open sessions: superseding, forks, exit
values, failures, redaction   objects, exceptions and secrets, as observers may see them
========== ====================================================================================
"""

from .context import wrap
from .decorator import step
from .functions import checkpoint, current_session, current_step, log, metric, track
from .redaction import Redactor
from .run import PublishError, WsMonitorWarning
from .session import CarryingExecutor, Session, join, session
from .steps import Chain, LogHandler, Step
from .values import ValueLimits

ThreadPoolExecutor = CarryingExecutor

__all__ = [
    "Chain",
    "LogHandler",
    "PublishError",
    "Redactor",
    "Session",
    "Step",
    "ThreadPoolExecutor",
    "ValueLimits",
    "WsMonitorWarning",
    "checkpoint",
    "current_session",
    "current_step",
    "join",
    "log",
    "metric",
    "session",
    "step",
    "track",
    "wrap",
]
