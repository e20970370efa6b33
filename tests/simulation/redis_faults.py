"""What happens to a Redis, and on the way to it: `plan.SHARED`, done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .redis_host import HOST, RedisHost

if TYPE_CHECKING:
    from .network import Connection
    from .plan import Happening
    from .run import Simulation


def _redis(simulation: Simulation) -> RedisHost:
    assert simulation.redis is not None
    return simulation.redis


def cut(simulation: Simulation, happening: Happening) -> None:
    """Nothing goes through between one node and Redis, either way."""
    network = simulation.world.network
    name = simulation.host(happening).name
    network.part(name, HOST)
    simulation.world.later(happening.length, lambda: network.heal(name, HOST))


def _one_way(simulation: Simulation, happening: Happening, *, to_redis: bool) -> None:
    network = simulation.world.network
    name = simulation.host(happening).name
    network.deaf.add((name, HOST) if to_redis else (HOST, name))
    simulation.world.later(happening.length, lambda: network.heal(name, HOST))


def answers_lost(simulation: Simulation, happening: Happening) -> None:
    """What a node asks is done, and it is not told."""
    _one_way(simulation, happening, to_redis=False)


def questions_lost(simulation: Simulation, happening: Happening) -> None:
    """What a node asks does not arrive."""
    _one_way(simulation, happening, to_redis=True)


def reset(simulation: Simulation, happening: Happening) -> None:
    """A connection to Redis breaks: at once, at some byte, or without a word."""
    found: list[Connection] = [
        one for one in simulation.world.network.connections if one.server.process.host == HOST
    ]
    if not found:
        return
    connection = found[happening.number % len(found)]
    how = (happening.number >> 8) % 4
    if how == 0:
        connection.reset()
    elif how == 1:
        connection.to_server.cut_after = 1 + happening.number % 3_000
    elif how == 2:
        connection.to_client.cut_after = 1 + happening.number % 3_000
    else:
        connection.swallow()


def stands_still(simulation: Simulation, happening: Happening) -> None:
    """A save that takes the whole machine, a slow command of somebody else's."""
    simulation.suspend(_redis(simulation).process, happening)


def slow(simulation: Simulation, happening: Happening) -> None:
    """Every answer takes longer; it may take so long that nobody is sure of anything."""
    redis = _redis(simulation)
    redis.slow = (0.05, 0.3, 0.7, 1.5)[happening.number % 4]
    simulation.world.later(happening.length, lambda: setattr(redis, "slow", 0.0))


def full(simulation: Simulation, happening: Happening) -> None:
    """It is at its memory limit."""
    redis = _redis(simulation)
    redis.full = True
    simulation.world.later(happening.length, lambda: setattr(redis, "full", False))


def _down(simulation: Simulation, happening: Happening, then: Callable[[RedisHost], None]) -> None:
    redis, world = _redis(simulation), simulation.world
    if redis.process is None or not redis.process.alive:
        return
    redis.kill()
    then(redis)

    def back() -> None:
        # It reads what it has; meanwhile it answers, and says so.
        redis.loading = world.now + (happening.number >> 4) % 3
        redis.start()

    world.later(happening.length, back)


def killed(simulation: Simulation, happening: Happening) -> None:
    """It is killed, and comes back with everything."""
    _down(simulation, happening, lambda redis: None)


def dies_at_effect(simulation: Simulation, happening: Happening) -> None:
    redis = _redis(simulation)
    process = redis.process

    def dead() -> None:
        if redis.process is process:
            simulation.world.later(happening.length, redis.start)

    simulation.dies_at_effect(process, happening, dead)


def goes_back(simulation: Simulation, happening: Happening) -> None:
    """It is killed, and comes back with what was on its disk."""
    _down(simulation, happening, lambda redis: redis.forget(happening.number >> 3))


def starts_empty(simulation: Simulation, happening: Happening) -> None:
    """It is killed, and comes back with nothing."""
    _down(simulation, happening, lambda redis: redis.lost(None))


def replica(simulation: Simulation, happening: Happening) -> None:
    """A replica takes over, which did not have the newest writes. It may be asked before it is told."""
    redis, world = _redis(simulation), simulation.world
    if redis.process is None or not redis.process.alive:
        return
    redis.kill()
    redis.forget(happening.number >> 3)
    redis.replid = ""
    late = min(happening.length, 20.0) if happening.number & 1 else 0.0
    redis.data.read_only = bool(late)

    def promoted() -> None:
        if redis.data.read_only:
            redis.replaced()
            redis.data.read_only = False

    world.later(0.5, redis.start)
    world.later(0.5 + late, promoted)


def emptied(simulation: Simulation, happening: Happening) -> None:
    """Somebody says FLUSHALL."""
    _redis(simulation).flush()


def renamed(simulation: Simulation, happening: Happening) -> None:
    """Its replication id changes, and nothing else."""
    _redis(simulation).replaced()


def cut_off(simulation: Simulation, happening: Happening) -> None:
    """A node is away for so long that the bus does not have any more what it has not read."""
    redis = _redis(simulation)

    def trim() -> None:
        if redis.process is not None and redis.process.alive and not redis.data.read_only:
            redis.data.call(b"XTRIM", b"wsm:bus", b"MAXLEN", b"0")
            redis.data.take()

    simulation.world.later(happening.length - 0.001, trim)
    cut(simulation, happening)


def scripts_forgotten(simulation: Simulation, happening: Happening) -> None:
    """Somebody says SCRIPT FLUSH."""
    _redis(simulation).scripts.known.clear()


HAPPENINGS: Final[dict[str, Callable[[Simulation, Happening], None]]] = {
    "cut a node off from Redis": cut,
    "a node does not hear Redis": answers_lost,
    "Redis does not hear a node": questions_lost,
    "reset a connection to Redis": reset,
    "Redis stands still": stands_still,
    "Redis is slow": slow,
    "Redis is full": full,
    "Redis is killed": killed,
    "Redis dies at an effect": dies_at_effect,
    "Redis goes back": goes_back,
    "Redis starts empty": starts_empty,
    "Redis is emptied": emptied,
    "a replica takes over": replica,
    "another replication id": renamed,
    "messages are cut off": cut_off,
    "scripts are forgotten": scripts_forgotten,
}


def heal(simulation: Simulation) -> None:
    """All is well again."""
    redis = _redis(simulation)
    redis.slow, redis.loading, redis.full = 0.0, 0.0, False
    if redis.data.read_only:
        redis.data.read_only = False
        redis.replaced()
    process = redis.process
    if process is not None:
        process.crash_after = None
        if process.suspended:
            process.resume(clock_stood_still=False)
    redis.start()
