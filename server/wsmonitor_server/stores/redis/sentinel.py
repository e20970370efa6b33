"""Where the primary is, as Sentinels say. redis-py asks them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any, Final

from .address import Address
from .instance import UnfitError

TIMEOUT: Final = 0.5
"""Seconds for one Sentinel to answer: all are asked at the same time, and who does not answer has no say."""


async def primary(address: Address) -> tuple[str, int]:
    """Host and port of the primary that most of the Sentinels name.

    Raises:
        UnfitError: none of them names one that is alive; waiting may help.
        ConfigurationError: the file with their password cannot be read.
    """
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    made: Any = Sentinel  # it is annotated in part
    settings: dict[str, Any] = {
        "username": address.sentinel_username or None,
        "password": address.sentinel_secret() or None,
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),  # who asks tries again by itself
        "protocol": 2,
    }
    if address.encrypted:
        settings |= {"ssl": True, "ssl_check_hostname": True, **dict(address.tls)}
    asked = [made([one], sentinel_kwargs=settings) for one in address.sentinels]
    try:
        answers = await asyncio.gather(*(_ask(one, address.primary) for one in asked))
    finally:
        for one in asked:
            with contextlib.suppress(Exception):
                await one.sentinels[0].aclose()
    named = Counter(answer for answer in answers if isinstance(answer, tuple))
    if not named:
        each = zip(address.sentinels, answers, strict=True)
        words = "; ".join(f"{host}:{port} {answer}" for (host, port), answer in each)
        raise UnfitError(
            f"no Sentinel names a primary {address.primary!r} that is alive: {words}", place=address.shown
        )
    return named.most_common(1)[0][0]


async def _ask(sentinel: Any, name: str) -> tuple[str, int] | str:
    """What one Sentinel says: where the primary is, or, in words, why not."""
    from redis.exceptions import RedisError

    try:
        async with asyncio.timeout(2 * TIMEOUT):
            host, port = await sentinel.discover_master(name)
    except TimeoutError:
        return "does not answer"
    except (RedisError, OSError) as exc:
        # redis-py puts the Sentinel itself in front of its reason.
        why = str(exc).partition(" - ")[2]
        return f"cannot be asked ({why})" if why else "knows none"
    return str(host), int(port)
