"""Hypothesis strategies made from the message types themselves, so that no field is forgotten."""

from __future__ import annotations

import re
import string
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from wsmonitor.protocol import ids

# Latin, Greek, CJK, beyond the basic plane, quotes and escapes; control characters join in `TEXT` only.
_LETTERS = string.ascii_letters + string.digits + " .:~-_'\"\\äΩ語\U0001f600\ufffd"
TEXT = st.text(alphabet=_LETTERS + "\x00\n\t\x7f\u2028", max_size=12)
_NAME = st.text(alphabet=_LETTERS, min_size=1, max_size=10).filter(lambda text: text == text.strip(" "))


def _patterned(pattern: str) -> st.SearchStrategy[str]:
    if "{64}" in pattern:
        return st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)
    if "{32}" in pattern:
        return st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)
    if "[1-9]" in pattern:
        return st.integers(0, 10**20 - 1).map(str)
    if pattern == ids.TOPIC_PATTERN:
        return _NAME | st.just("/directory") | _NAME.map("/directory/".__add__)
    return _NAME


def _string(info: mi.StrType, pattern: str | None) -> st.SearchStrategy[str]:
    if pattern is None:
        return TEXT if not info.min_length else _NAME
    return _patterned(pattern).filter(lambda text: re.search(pattern, text) is not None)


def _sized(info: Any) -> dict[str, int]:
    return {"min_size": info.min_length or 0, "max_size": 3}


def of(info: mi.Type) -> st.SearchStrategy[Any]:
    """A strategy for a type as `msgspec.inspect.type_info` tells it."""
    match info:
        case mi.StructType():
            return struct(info.cls)
        case mi.UnionType():
            return st.one_of(*(of(item) for item in info.types if not isinstance(item, mi.CustomType)))
        case mi.LiteralType():
            return st.sampled_from(info.values)
        case mi.StrType():
            return _string(info, info.pattern)
        case mi.Metadata(type=mi.StrType() as string, extra_json_schema={"pattern": pattern}):
            return _string(string, pattern)
        case mi.IntType():
            low = -(2**63) if info.ge is None else info.ge
            high = 2**63 - 1 if info.le is None else info.le
            return st.integers(low, high)
        case mi.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.ListType():
            return st.lists(of(info.item_type), **_sized(info))
        case mi.VarTupleType():
            return st.lists(of(info.item_type), **_sized(info)).map(tuple)
        case mi.TupleType():
            return st.tuples(*(of(item) for item in info.item_types))
        case mi.DictType():
            return st.dictionaries(of(info.key_type), of(info.value_type), max_size=3)
        case mi.RawType():
            return st.just(msgspec.Raw(b'{"id":"x"}'))
        case mi.AnyType():
            return st.none() | st.integers(-9, 9) | TEXT
    raise NotImplementedError(info)


@cache
def struct(cls: type) -> st.SearchStrategy[Any]:
    """A strategy for records of *cls*; fields that have a default are sometimes left at it."""
    info = mi.type_info(cls)
    assert isinstance(info, mi.StructType)
    fields = {}
    for field in info.fields:
        # `UnsetType` shows as a custom type; it occurs as a default only.
        types = field.type.types if isinstance(field.type, mi.UnionType) else (field.type,)
        # UNSET is the default of the fields that may have it.
        wanted = st.one_of(*(of(item) for item in types if not isinstance(item, mi.CustomType)))
        if field.required:
            fields[field.name] = wanted
            continue
        if field.default is not msgspec.NODEFAULT:
            default = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        else:
            default = msgspec.UNSET
        fields[field.name] = st.just(default) | wanted
    return st.builds(cls, **fields)
