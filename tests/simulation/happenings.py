"""What may happen besides work, done: each kind of `plan.FAULTS`, to whom the plan's number chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from . import redis_faults

if TYPE_CHECKING:
    from wsmonitor.protocol.reducer import SessionState

    from .actors import Client
    from .plan import Happening
    from .run import Simulation


def kill_server(simulation: Simulation, happening: Happening) -> None:
    host = simulation.host(happening)
    host.kill()
    simulation.world.later(happening.length, host.start)


def crash_at_effect(simulation: Simulation, happening: Happening) -> None:
    host = simulation.host(happening)
    process = host.process

    def dead() -> None:
        if host.process is process:  # else the next one has it
            host.disk.crashed()
        simulation.world.later(happening.length, host.start)

    simulation.dies_at_effect(process, happening, dead)


def stop_server(simulation: Simulation, happening: Happening) -> None:
    simulation.host(happening).stop(happening.length)


def lose_power(simulation: Simulation, happening: Happening) -> None:
    host = simulation.hosts[0]
    process = host.process
    if process is None or not process.alive:
        return
    for connection in simulation.world.network.connections:
        for endpoint in (connection.client, connection.server):
            if endpoint.process is process:
                endpoint.silent = True
    process.kill()
    simulation.disk.lost_power()
    simulation.oracle.power_lost(_on_disk(simulation))
    simulation.world.later(happening.length + 1.0, host.start)


def _on_disk(simulation: Simulation) -> dict[str, SessionState]:
    return simulation.disk.states(list(simulation.oracle.lines))


def disk_full(simulation: Simulation, happening: Happening) -> None:
    simulation.disk.faults.full = True
    simulation.world.later(happening.length, lambda: setattr(simulation.disk.faults, "full", False))


def disk_torn(simulation: Simulation, happening: Happening) -> None:
    simulation.disk.faults.torn += 1 + happening.number % 3


def slow_disk(simulation: Simulation, happening: Happening) -> None:
    simulation.disk.faults.slow = 0.5
    simulation.world.later(happening.length, lambda: setattr(simulation.disk.faults, "slow", 0.0))


def reset(simulation: Simulation, happening: Happening) -> None:
    connection = simulation.one(simulation.world.network.connections, happening.number)
    if connection is not None:
        connection.reset()


def reset_at_byte(simulation: Simulation, happening: Happening) -> None:
    connection = simulation.one(simulation.world.network.connections, happening.number)
    if connection is not None:
        stream = connection.to_client if happening.number & 1 else connection.to_server
        stream.cut_after = 1 + happening.number % 3_000


def half_open(simulation: Simulation, happening: Happening) -> None:
    connection = simulation.one(simulation.world.network.connections, happening.number)
    if connection is not None:
        connection.swallow()


def stall(simulation: Simulation, happening: Happening) -> None:
    connection = simulation.one(simulation.world.network.connections, happening.number)
    if connection is not None:
        connection.stall(simulation.world.now + happening.length)


def _partition(simulation: Simulation, client: Client | None, happening: Happening) -> None:
    """Nothing goes through between a client and the server; of several, sometimes only one of them."""
    if client is not None:
        network, host = simulation.world.network, client.process.host
        servers = simulation.hosts if happening.number & 256 else [simulation.host(happening)]
        for server in servers:
            network.part(host, server.name)
            simulation.world.later(happening.length, lambda name=server.name: network.heal(host, name))  # type: ignore[misc]


def partition_observer(simulation: Simulation, happening: Happening) -> None:
    _partition(simulation, simulation.one(simulation.observers, happening.number), happening)


def partition_publisher(simulation: Simulation, happening: Happening) -> None:
    _partition(
        simulation,
        simulation.one([*simulation.publishers, *simulation.programs], happening.number),
        happening,
    )


def suspend_observer(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one(simulation.observers, happening.number)
    simulation.suspend(one and one.process, happening)


def suspend_publisher(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one([*simulation.publishers, *simulation.programs], happening.number)
    simulation.suspend(one and one.process, happening)


def suspend_server(simulation: Simulation, happening: Happening) -> None:
    simulation.suspend(simulation.host(happening).process, happening)


def wall_jump(simulation: Simulation, happening: Happening) -> None:
    clients: list[Client] = [*simulation.observers, *simulation.publishers, *simulation.programs]
    one = simulation.one(clients, happening.number)
    if one is not None:
        one.process.wall_offset += (happening.number % 7_200) - 3_600
        simulation.oracle.jumped(one.process)


def kill_publisher(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one(simulation.publishers, happening.number)
    if one is not None:
        simulation.flush(one, happening.length)
        one.kill()
        simulation.publishers.remove(one)
        simulation.dead.append(one)
        # The program is started again: a new process, under an id of its own.
        simulation.world.later(
            happening.length,
            lambda: simulation.publisher(one.session, f"again{simulation.born}", 3_600.0) and None,
        )


def kill_program(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one(simulation.programs, happening.number)
    if one is not None:
        one.kill()
        simulation.programs.remove(one)
        simulation.gone.append(one)


def end_program(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one(simulation.programs, happening.number)
    if one is not None:
        one.do(one.finish)


def take_over(simulation: Simulation, happening: Happening) -> None:
    one = simulation.one([p for p in simulation.publishers if not p.fenced], happening.number)
    if one is not None and not simulation.peace:
        simulation.publishers.remove(one)
        simulation.dead.append(one)
        simulation.publisher(one.session, one.producer, 3_600.0).inherited.append(one)


def revoke(simulation: Simulation, happening: Happening) -> None:
    clients: list[Client] = [*simulation.observers, *simulation.publishers, *simulation.programs]
    one = simulation.one(clients, happening.number)
    if one is not None:
        simulation.operator.do(lambda: simulation.operator.revoke(one.tokens.jti))


def provider_fails(simulation: Simulation, happening: Happening) -> None:
    clients: list[Client] = [*simulation.observers, *simulation.publishers, *simulation.programs]
    one = simulation.one(clients, happening.number)
    if one is not None:
        one.tokens.failing = True
        simulation.world.later(happening.length, lambda: setattr(one.tokens, "failing", False))


def slow_network(simulation: Simulation, happening: Happening) -> None:
    network = simulation.world.network
    network.latency = (0.05, 0.8)
    simulation.world.later(happening.length, lambda: setattr(network, "latency", (0.0002, 0.003)))


def churn(simulation: Simulation, happening: Happening) -> None:
    observer = simulation.one(simulation.observers, happening.number)
    if observer is None:
        return
    for number in range(1 + happening.number % 6):
        observer.do(lambda n=number: observer.leave(happening.number + n))
        session = simulation.sessions[(happening.number + number) % len(simulation.sessions)]
        delivery = "latest" if (happening.number >> number) & 4 else "all"
        observer.do(lambda s=session, d=delivery: observer.watch(s, d))


def command(simulation: Simulation, happening: Happening) -> None:
    session = simulation.sessions[happening.number % len(simulation.sessions)]
    key = f"{simulation.world.random.getrandbits(128):032x}"
    simulation.keys.append((session, key))
    simulation.operator.do(lambda: simulation.operator.command(session, key))


def command_again(simulation: Simulation, happening: Happening) -> None:
    if simulation.keys:
        session, key = simulation.keys[happening.number % len(simulation.keys)]
        simulation.operator.do(lambda: simulation.operator.command(session, key))


def remove_session(simulation: Simulation, happening: Happening) -> None:
    session = simulation.one(simulation.sessions, happening.number)
    simulation.operator.do(lambda: simulation.operator.remove(session))


def burst(simulation: Simulation, happening: Happening) -> None:
    someone = simulation.one(simulation.working(), happening.number)
    if someone is not None:
        for _ in range(100 + happening.number % 400):
            someone.do(someone.work)


def directory(simulation: Simulation, happening: Happening) -> None:
    observer = simulation.one(simulation.observers, happening.number)
    if observer is not None:
        observer.do(lambda: observer.watch("/directory"))


HAPPENINGS: Final[dict[str, Callable[[Simulation, Happening], None]]] = {
    "kill server": kill_server,
    "crash server at an effect": crash_at_effect,
    "stop server": stop_server,
    "lose power": lose_power,
    "disk full": disk_full,
    "disk error of unknown outcome": disk_torn,
    "slow disk": slow_disk,
    "reset a connection": reset,
    "reset at a byte": reset_at_byte,
    "half-open connection": half_open,
    "stall a connection": stall,
    "partition an observer": partition_observer,
    "partition a publisher": partition_publisher,
    "suspend an observer": suspend_observer,
    "suspend the server": suspend_server,
    "suspend a publisher": suspend_publisher,
    "wall clock jumps": wall_jump,
    "kill a publisher": kill_publisher,
    "kill a program": kill_program,
    "a program ends": end_program,
    "take a producer over": take_over,
    "revoke a token": revoke,
    "token provider fails": provider_fails,
    "slow network": slow_network,
    "subscription churn": churn,
    "command": command,
    "the same command again": command_again,
    "remove a session": remove_session,
    "burst": burst,
    "watch the directory": directory,
    **redis_faults.HAPPENINGS,
}
"""How each kind of happening is done."""
