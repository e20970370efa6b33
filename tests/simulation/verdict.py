"""What has to hold in the end: everybody agrees, nothing was lost on the way, and nothing remains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsmonitor.protocol.entities import Command, Step
from wsmonitor.protocol.states import TERMINAL

if TYPE_CHECKING:
    from .actors import Observer, Publisher, Tokens
    from .programs import Flusher, Program
    from .redis_host import RedisHost
    from .run import Simulation


def everybody_agrees(simulation: Simulation) -> None:
    """When traffic stops, everybody has the same, and it is what was published."""
    fail, oracle = simulation.oracle.fail, simulation.oracle
    for host in simulation.hosts:
        if not host.running:
            fail("HONEST", f"{host.name} does not run in the end")
    if simulation.redis is not None:
        _nodes_agree(simulation, simulation.redis)
    for observer in simulation.observers:
        status = observer.connection.status
        allowed = not observer.tokens._renewable and (
            observer.process.wall() > 0
            and (simulation.plan.short_tokens or observer.tokens.jti in oracle.revoked)
        )
        if not status.live:
            if not allowed:
                fail("AGREE", f"{observer.name} is {status.phase} in the end: {status.reason}")
            continue
        patterns = observer.tokens
        for subscription, seen in observer.subscriptions:
            _agrees(simulation, observer, subscription, seen, patterns)
    for publisher in simulation.publishers:
        _published(simulation, publisher)
    for flusher in simulation.flushers:
        _flushed(simulation, flusher)
    for program in simulation.programs:
        _said(simulation, program)
    for program in simulation.gone:
        _looks_dead(simulation, program)
    for session in simulation.sessions:
        _stays_removed(simulation, session)
    for dead in simulation.dead:
        _declared(simulation, dead)
    if not simulation.oracle.lineage:
        # What became of a command may be lost with the power; nobody asserts that anew.
        for session, key in simulation.keys:
            _command_ended(simulation, session, key)


def _nodes_agree(simulation: Simulation, redis: RedisHost) -> None:
    """Every server knows the same, and it is what Redis has."""
    fail, lines = simulation.oracle.fail, simulation.oracle.lines
    there = redis.states()
    for session, state in there.items():
        line = lines[session].state
        if (state.epoch, state.seq, state.digest) != (line.epoch, line.seq, line.digest):
            fail("AGREE", f"Redis has {session} at {state.seq}; its commits make {line.seq}")
    wardens = []
    revoked = {jti.decode() for jti in redis.data.hgetall(b"wsm:revoked")[::2]}
    for host in simulation.hosts:
        engine = host.engine
        assert engine is not None
        nodes = engine._nodes
        assert nodes is not None
        if engine.holding or engine.degraded is not None:
            fail("AGREE", f"{host.name} holds in the end: {engine.degraded}")
        if nodes._warden:
            wardens.append(host.name)
        if engine.epoch != redis.data.hget(b"wsm:meta", b"epoch").decode():  # type: ignore[union-attr]
            fail("AGREE", f"{host.name} is at the store's epoch {engine.epoch}")
        if set(engine._revocations) != revoked:
            fail("EXPIRED", f"{host.name} knows {sorted(engine._revocations)}, Redis {sorted(revoked)}")
        known = {one for one in engine._sessions.known if one in lines and lines[one].state.seq}
        if known != {one for one, state in there.items() if state.seq}:
            fail("AGREE", f"{host.name} knows {sorted(known)}, there are {sorted(there)}")
        for loaded in engine._sessions:
            kept = there.get(loaded.id)
            head = loaded.feed.state
            if kept is not None and (head.epoch, head.seq) != (kept.epoch, kept.seq):
                fail(
                    "AGREE",
                    f"{host.name} has {loaded.id} at {head.epoch}:{head.seq}, not {kept.epoch}:{kept.seq}",
                )
    for session in there:
        told = {
            host.name: loaded.feed.presence.who(loaded.feed.subscribers.values())
            for host in simulation.hosts
            if host.engine is not None
            and (loaded := host.engine._sessions.get(session)) is not None
            and loaded.feed.subscribers
        }
        if len(set(told.values())) > 1:
            fail("AGREE", f"who watches {session} is another at each server: {told}")
    if len(wardens) != 1:
        fail("AGREE", f"the wardens in the end: {wardens}")


def _agrees(simulation: Simulation, observer: Observer, subscription: Any, seen: Any, tokens: Tokens) -> None:
    fail = simulation.oracle.fail
    line = simulation.oracle.line(seen.topic)
    name = f"{observer.name} of {seen.topic}"
    if seen.topic.startswith("/"):
        if subscription.phase != "live":
            fail("AGREE", f"{name} is {subscription.phase} in the end: {subscription.reason}")
        return
    covers = any(pattern in ("session-*", seen.topic) for pattern in tokens.sessions)
    if not covers:
        if subscription.phase != "not_available":
            fail("ISOLATED", f"{name} is {subscription.phase}, outside of its token's {tokens.sessions}")
        return
    # A loss may have undone the removal since.
    told_removed = subscription.phase == "not_available" and seen.topic in simulation.oracle.removals
    if line is None or line.state.seq == 0:
        if subscription.phase != "absent" and not told_removed:
            fail("AGREE", f"{name} is {subscription.phase} in the end, and there is no such session")
        return
    if told_removed:
        return  # it was told of the end, and not of the new beginning under the same id
    state = subscription.state
    if subscription.phase != "live" or state is None:
        fail("AGREE", f"{name} is {subscription.phase} in the end: {subscription.reason}")
    if (state.epoch, state.seq, state.digest) != (line.state.epoch, line.state.seq, line.state.digest):
        fail(
            "AGREE",
            f"{name} ends at {state.epoch}:{state.seq}, the committed is {line.state.epoch}:{line.state.seq}",
        )


def _published(simulation: Simulation, publisher: Publisher) -> None:
    """What the program said last is what everybody sees."""
    fail = simulation.oracle.fail
    status = publisher.connection.status
    if publisher.fenced or publisher.publication is None:
        return
    if not status.live:
        fail("AGREE", f"{publisher.name} is {status.phase} in the end: {status.reason}")
    if publisher.publication.unacknowledged:
        fail(
            "DURABLE",
            f"{publisher.name} has {publisher.publication.unacknowledged} changes left "
            f"({publisher.publication.stage})",
        )
    line = simulation.oracle.line(publisher.session)
    refused = bool(publisher.rejections)
    for ident, change in publisher.steps.items():
        step = None if line is None else line.state.entities["step"].get(ident)
        if step is None:
            if not refused:
                fail("DURABLE", f"{publisher.name} published {ident}, and it is not there")
            continue
        assert isinstance(step, Step)
        if step.metrics.get("mark") != change.metrics["mark"] and not refused:  # type: ignore[index]
            fail(
                "DURABLE",
                f"{publisher.name} last published {change.metrics} of {ident}, there is {step.metrics}",
            )
        if step.state != change.state and not refused:
            fail("HONEST", f"{publisher.name}: {ident} is {change.state}, shown is {step.state}")


def _flushed(simulation: Simulation, flusher: Flusher) -> None:
    """What was kept on the disk of a killed program is there."""
    fail, session = simulation.oracle.fail, flusher.dead.session
    if not flusher.result:
        fail("DURABLE", f"the {flusher.name} has not come to an end: {flusher.connection.status}")
    line = simulation.oracle.line(session)
    # Who was fenced was told so; what was refused, or removed since, or lost with the power, too.
    if flusher.result != "delivered" or flusher.rejections or simulation.oracle.lineage != flusher.lineage:
        return
    if line is not None and line.removed is not None:
        return
    for kind, what, mark in flusher.wanted:
        there = line is not None and (line.logs[what] == 1 if kind == "log" else (what, mark) in line.present)
        if not there:
            fail("DURABLE", f"the {flusher.name} was said to be delivered; {what} ({mark:g}) is not there")


def _said(simulation: Simulation, program: Program) -> None:
    """What a program said by the SDK is what everybody sees, and it was not harmed."""
    fail = simulation.oracle.fail
    session = program.session
    if session is None:
        fail("HARMLESS", f"{program.name} could not begin")
    if program.open and session.unacknowledged:
        fail("DURABLE", f"{program.name} has {session.unacknowledged} changes left: {session.errors}")
    if simulation.oracle.lineage != program.lineage and not program.open:
        return  # its end may be gone with the power, and nobody is there to say it again
    line = simulation.oracle.line(session.id)
    if line is None:
        fail("DURABLE", f"{program.name} began {session.id}, and it is not there: {session.errors}")
    shown = line.state.session
    if shown is None or shown.state != session.state:
        fail("HONEST", f"{program.name} is {session.state}, shown is {shown and shown.state}")
    for ident, (state, progress, metric) in program.said.items():
        step = line.state.entities["step"].get(ident)
        if not isinstance(step, Step):
            fail("DURABLE", f"{program.name} published {ident}, and it is not there")
        found = (
            step.state,
            None if step.progress is None else step.progress.done,
            step.metrics.get("loss"),
        )
        if found != (state, progress, metric):
            fail(
                "DURABLE", f"{program.name} last said {(state, progress, metric)} of {ident}, shown: {found}"
            )
    if simulation.oracle.lineage == program.lineage and not session._run.channel.dropped_logs:
        for text in program.texts:
            if line.logs[text] != 1:
                fail("DURABLE", f"{program.name} wrote {text!r}; it is there {line.logs[text]} times")


def _looks_dead(simulation: Simulation, program: Program) -> None:
    """What a killed program left open does not look alive."""
    line = None if program.session is None else simulation.oracle.line(program.session.id)
    if line is None:
        return
    for kind in ("session", "chain", "step"):
        for entity in line.state.entities[kind].values():
            if getattr(entity, "state", "crashed") not in TERMINAL:
                simulation.oracle.fail("HONEST", f"{entity.id} looks alive long after {program.name} died")


def _stays_removed(simulation: Simulation, session: str) -> None:
    """Who had a session that was removed does not make it anew when it comes back."""
    line = simulation.oracle.line(session)
    if line is None or line.removed is None or line.state.seq == 0:
        return
    everybody = [*simulation.publishers, *simulation.dead]
    if not any(one.session == session and one.since > line.removed for one in everybody):
        simulation.oracle.fail("HONEST", f"{session} was removed, and is there again")


def _declared(simulation: Simulation, dead: Publisher) -> None:
    """What a dead program left open does not look alive."""
    line = simulation.oracle.line(dead.session)
    if line is None or dead.process.alive:
        return
    held = [p for p in (*simulation.publishers, *simulation.dead) if p.process.alive and not p.fenced]
    if any((p.producer, p.session) == (dead.producer, dead.session) for p in held):
        return  # somebody else has it, and answers for it
    for step in line.state.entities["step"].values():
        assert isinstance(step, Step)
        if step.producer == dead.producer and step.state not in TERMINAL:
            simulation.oracle.fail(
                "HONEST", f"{step.id} is {step.state} long after its producer {dead.name} has died"
            )


def _command_ended(simulation: Simulation, session: str, key: str) -> None:
    line = simulation.oracle.line(session)
    record = None if line is None else line.state.entities["command"].get(key)
    if record is None:
        return
    assert isinstance(record, Command)
    if record.state in ("requested", "delivered", "accepted"):
        simulation.oracle.fail("HONEST", f"the command {key} is {record.state} long after its deadline")
    if record.state == "applied" and not simulation.oracle.executed[key]:
        simulation.oracle.fail("HONEST", f"the command {key} is applied, and nobody has executed it")
    if record.state in ("rejected", "expired") and simulation.oracle.executed[key]:
        simulation.oracle.fail("HONEST", f"the command {key} is {record.state}, and it was executed")


def nothing_remains(simulation: Simulation) -> None:
    """Everybody goes home, and nothing remains."""
    world = simulation.world
    world.note("plan", "everybody closes")
    clients = [client for client in simulation.clients() if client.process.alive]
    clients += [client for client in simulation.dead if client.process.alive]
    for client in clients:
        client.close()
    world.run_until(world.now + (10.0 if simulation.plan.nodes else 30.0))
    for client in clients:
        client.check_clean()
    for host in simulation.hosts:
        server, engine = host.server, host.engine
        assert server is not None
        assert engine is not None
        if server.connections or server.peers or server._by_subject:
            world.failed("CLEAN", f"the {host.name} keeps {server.connections}")
        for loaded in engine._sessions:
            if loaded.feed.subscribers:
                world.failed("CLEAN", f"{loaded.id} keeps subscribers after all have gone")
        host.stop()
    world.run_until(world.now + 15.0)
    if simulation.redis is not None:
        simulation.redis.kill()
