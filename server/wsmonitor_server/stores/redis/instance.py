"""Which Redis is at the other end of a connection, and whether sessions may live there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wsmonitor_server.stores.base import StoreError

_OLDEST: Final = 7


class UnfitError(StoreError):
    """There is a Redis, and it is not one that can be used now.

    Attributes:
        lasting: waiting does not help: somebody has to change something.
    """

    def __init__(
        self, message: str, *, place: str, code: str = "store_failed", lasting: bool = False
    ) -> None:
        super().__init__(message, code=code, place=place)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of one Redis, in one role.

    Attributes:
        run_id: another after each start.
        replid: another after each change of the primary: what is written from then on is another history.
        advice: what whoever runs it should know.
    """

    run_id: str = ""
    replid: str = ""
    version: str = ""
    advice: tuple[str, ...] = ()

    def same(self, other: Instance) -> bool:
        """Whether what one has acknowledged the other still has."""
        return (self.run_id, self.replid) == (other.run_id, other.replid)


def facts(info: bytes) -> dict[str, str]:
    """What INFO says, by name."""
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def refuse_eviction(said: dict[str, str], place: str) -> None:
    """Raise `UnfitError` where Redis would throw sessions away, by what it *said* of its memory."""
    policy = said.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise UnfitError(
            f"maxmemory-policy is {policy}: sessions would vanish without a word when memory runs short; "
            "set it to noeviction",
            place=place,
            lasting=True,
        )


def judge(said: dict[str, str], place: str) -> Instance:
    """What *said* of itself the Redis at *place*.

    Raises:
        UnfitError: sessions cannot live there now, or at all.
    """
    version = said.get("redis_version", "")
    name = f"Valkey {said['valkey_version']}" if "valkey_version" in said else f"Redis {version}"
    if said.get("cluster_enabled") == "1":
        raise UnfitError(
            "this is a Redis Cluster, which is not supported: give a Redis or Valkey without "
            "cluster mode, with replicas if need be",
            place=place,
            lasting=True,
        )
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < _OLDEST:
        raise UnfitError(f"{name} is too old: 7.0 or later is needed", place=place, lasting=True)
    refuse_eviction(said, place)
    if said.get("loading") == "1":
        raise UnfitError("Redis is still loading its data", place=place)
    if said.get("role") != "master":
        raise UnfitError(
            "Redis is a read-only replica: give its primary's address", place=place, code="read_only"
        )
    advice = []
    if said.get("aof_enabled") != "1":
        advice.append(
            "appendonly is off: a Redis that dies loses what it has not saved, and every session begins "
            "a new epoch"
        )
    return Instance(said.get("run_id", ""), said.get("master_replid", ""), name, tuple(advice))
