"""Scripts on a simulated Redis: the store's own Lua, run by Lua 5.1, as Redis does.

What Redis gives to a script and takes from it are its rules of conversion: nothing is false, a number loses
its fraction, a list ends at the first nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from lupa import lua51

from .redis_data import Data, Failure, Status

_RUN: Final = b"""
return function(call, unpacked)
  redis = {call = call}
  cmsgpack = {unpack = unpacked}
  return function(text)
    local made, why = loadstring(text)
    if not made then error(why) end
    return function(arguments) ARGV = arguments return made() end
  end
end
"""

_AT_THE_LIMIT: Final = b"#!lua flags=allow-oom\n"  # such a script runs without memory, too

_unpack: Final = msgspec.msgpack.Decoder().decode


class Scripts:
    """The scripts that a Redis knows, by their digests.

    One Lua serves all Redises of a process: what a script defines is local to it.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self.known: dict[bytes, bytes] = {}

    def load(self, text: bytes) -> bytes:
        """Know *text* by its name from now on."""
        # Redis' own naming of scripts; nothing is kept secret or verified by it.
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.known[sha] = text
        return sha

    def run(self, sha: bytes, arguments: Sequence[bytes]) -> Any:
        """Run a script. Raises `Failure`."""
        text = self.known.get(sha)
        if text is None:
            raise Failure("NOSCRIPT No matching script. Please use EVAL.")
        return _lua.run(self._data, text, arguments)


class _Lua:
    def __init__(self) -> None:
        self._runtime = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._data: Data | None = None
        self._make = self._runtime.execute(_RUN)(self._call, self._unpacked)
        self._made: dict[bytes, Any] = {}

    def run(self, data: Data, text: bytes, arguments: Sequence[bytes]) -> Any:
        function = self._made.get(text)
        if function is None:
            function = self._made[text] = self._make(text.removeprefix(_AT_THE_LIMIT))
        limited = data.limited
        data.limited = limited and not text.startswith(_AT_THE_LIMIT)
        self._data = data
        try:
            return self._back(function(self._runtime.table_from(list(arguments))))
        finally:
            self._data, data.limited = None, limited

    def _call(self, *arguments: Any) -> Any:
        assert self._data is not None
        return self._into(self._data.call(*(_argument(one) for one in arguments)))

    def _unpacked(self, data: bytes) -> Any:
        return self._into(_unpack(data))

    def _into(self, value: Any) -> Any:
        """What a script gets."""
        if isinstance(value, list | tuple):
            return self._runtime.table_from([self._into(one) for one in value])
        if isinstance(value, Status):
            return self._runtime.table_from({b"ok": bytes(value)})
        if isinstance(value, str):
            return value.encode()
        return False if value is None else value

    def _back(self, value: Any) -> Any:
        """What the one who asked gets."""
        if lua51.lua_type(value) == "table":
            found: list[Any] = []
            while (one := value[len(found) + 1]) is not None:
                found.append(self._back(one))
            return found
        if value is None or value is False:
            return None
        return int(value) if isinstance(value, bool | int | float) else value


def _argument(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"%d" % value if value == int(value) else repr(float(value)).encode()


_lua: Final = _Lua()
