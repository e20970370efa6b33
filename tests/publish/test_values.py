"""Values, failures and names as observers may see them."""

from __future__ import annotations

import datetime
import decimal
import enum
import hashlib
import json
import math
import pathlib
import re
import uuid
from collections import deque, namedtuple
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.protocol.entities import Value
from wsmonitor.publish.failures import TRACEBACK_LENGTH, describe
from wsmonitor.publish.redaction import NoRedactor, Redactor
from wsmonitor.publish.values import Capture, ValueLimits, safe_repr

LIMITS = ValueLimits()


def capture(limits: ValueLimits = LIMITS, redactor: Redactor | None = None, now: Any = None) -> Capture:
    return Capture(redactor or Redactor(), now or (lambda: 0.0), limits)


def shown(obj: object) -> Any:
    """What *obj* becomes, as JSON."""
    value, data = capture().value(obj)
    assert value.mime == "application/json"
    return json.loads(data or value.text)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Config:
    path: pathlib.Path
    password: str = "hunter2"
    hidden: int = field(default=1, repr=False)


class Row(msgspec.Struct):
    a: int
    b: list[int]


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"rows": 3, "ok": True, "none": None}, {"rows": 3, "ok": True, "none": None}),
        ([1, 2.5, "x"], [1, 2.5, "x"]),
        ((1, (2,)), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        (deque([1, 2]), [1, 2]),
        (17, 17),
        (True, True),
        (None, None),
        (float("nan"), "NaN"),
        ([math.inf, -math.inf], ["Infinity", "-Infinity"]),
        (2**53 + 1, "9007199254740993"),
        ({1: "a", "1": "b"}, {"1": "a", "1′": "b"}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/data/x"), "/data/x"),
        (Colour.RED, "red"),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        (Config(pathlib.PurePosixPath("x")), {"path": "x", "password": "[redacted]"}),  # type: ignore[arg-type]
        (Row(1, [2]), {"a": 1, "b": [2]}),
        (Pair(1, 2), {"left": 1, "right": 2}),
        ([b"bytes"], ["bytes"]),
        (3 + 4j, "(3+4j)"),
        ([int], ["int"]),
    ],
)
def test_plain_things_become_json(obj: object, expected: object) -> None:
    assert shown(obj) == expected


def test_numpy_scalars_without_numpy() -> None:
    class Scalar:
        shape = ()

        def item(self) -> float:
            return 1.5

    assert shown(Scalar()) == 1.5
    assert shown({"loss": Scalar()}) == {"loss": 1.5}


def test_text_stays_text() -> None:
    value, data = capture().value("two\nlines")
    assert (value.mime, value.text, data) == ("text/plain", "two\nlines", None)


def test_bytes() -> None:
    raw = bytes(range(256))
    value, data = capture().value(raw)
    assert (value.mime, value.text, value.truncated, data) == ("application/octet-stream", "", True, raw)
    value, _ = capture().value(b"plain words")
    assert (value.mime, value.text) == ("text/plain", "plain words")
    value, data = capture(ValueLimits(size=100)).value(bytes(1000))
    assert data is None
    assert "1,000 bytes, not sent" in value.text


@given(st.text(max_size=3000), st.integers(min_value=300, max_value=2000))
def test_a_preview_is_a_prefix_that_fits(text: str, inline: int) -> None:
    value, data = capture(ValueLimits(inline=inline), NoRedactor()).value(text)
    whole = text.encode("utf-8", "replace")
    assert value.size == len(whole)
    assert value.sha256 == hashlib.sha256(whole).hexdigest()
    assert value.truncated == (len(whole) > inline)
    preview = value.text.encode()
    assert whole.startswith(preview)
    assert len(preview) <= inline
    if value.truncated:
        assert data == whole
        assert inline - len(preview) < 4, "the longest prefix that ends at a character's boundary"
    else:
        assert data is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
        max_leaves=30,
    )
)
def test_anything_plain_gives_a_value_that_can_be_sent(obj: object) -> None:
    value, data = capture().value(obj)
    msgspec.json.decode(msgspec.json.encode(value), type=Value)
    if value.mime == "application/json":
        json.loads(data or value.text, parse_constant=lambda name: pytest.fail(name))


def test_depth_cycles_items_and_time_are_bounded() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert "nested more than" in capture().value(deep)[0].text
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    assert shown(cycle) == {"self": "… dict, contains itself"}
    value, _ = capture(ValueLimits(items=100)).value(list(range(1000)))
    assert value.mime == "text/plain"
    assert value.text.startswith("list of 1,000: 0, 1, 2")
    assert "more than 100 items" in value.text
    ticks = iter(range(100_000))
    value, _ = capture(ValueLimits(seconds=5), now=lambda: float(next(ticks))).value(list(range(100_000)))
    assert "took more than 5 s" in value.text
    value, data = capture(ValueLimits(size=10_000)).value("x" * 20_000)
    assert data is None
    assert not value.truncated
    assert "only the beginning is shown: 20,000 characters" in value.text


def test_a_partial_preview_shows_no_secret_either() -> None:
    value, _ = capture(ValueLimits(items=2)).value({"password": "hunter2", **dict.fromkeys("abcdef", 1)})
    assert "hunter2" not in value.text


def test_objects_that_are_not_plain_are_shown_by_their_repr() -> None:
    class Model:
        def __repr__(self) -> str:
            return "Model(layers=3)"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    value, _ = capture().value(Model())
    assert (value.mime, value.text) == ("text/plain", "Model(layers=3)")
    assert shown([Model()]) == ["Model(layers=3)"]
    assert "its repr raised RuntimeError" in capture().value(Broken())[0].text


def test_of_a_data_frame_the_head_is_rendered() -> None:
    class Frame:
        """Behaves as data frames do."""

        def __init__(self, rows: int) -> None:
            self.shape = (rows, 2)

        def head(self, count: int) -> Frame:
            return Frame(count)

        def _repr_html_(self) -> str:
            assert self.shape[0] <= 20, "the whole frame must not be rendered"
            return f"<table>{self.shape[0]} rows</table>"

    value, _ = capture().value(Frame(1_000_000))
    assert value.mime == "text/html"
    assert value.text == "<table>20 rows</table><p>first 20 of 1,000,000 rows</p>"
    assert capture().value(Frame(3))[0].text == "<table>3 rows</table>"


def test_a_container_that_another_thread_changes() -> None:
    class Shifting(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    value, _ = capture().value(Shifting(a=1))
    assert value.mime == "text/plain"


def test_a_failure_is_bounded_and_redacted() -> None:
    def recurse(depth: int) -> None:
        if depth == 0:
            raise ValueError("api_key=abcdef0123456789 " + "x" * 10_000)
        recurse(depth - 1)

    with pytest.raises(ValueError, match="api_key") as caught:
        recurse(500)
    failure = describe(caught.value, capture())
    assert failure.type == "ValueError"
    assert len(failure.message) <= 2048
    assert len(failure.traceback) <= TRACEBACK_LENGTH
    assert "abcdef0123456789" not in failure.message + failure.traceback
    assert "recurse" in failure.traceback


def test_an_exception_that_misbehaves() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    failure = describe(Nasty(), capture())
    assert "could not be had" in failure.message
    assert failure.type.endswith("Nasty")


def test_notes_and_missing_keys() -> None:
    error = KeyError("column")
    error.add_note("while reading data.csv")
    failure = describe(error, capture())
    assert failure.message == "key not found: 'column'\nwhile reading data.csv"


class Liar(dict[str, int]):
    def items(self) -> Any:
        raise KeyError("no")


class Exits:
    def __repr__(self) -> str:
        raise SystemExit("gotcha")


class Masked:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("who asks?")


class Denies:
    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


@pytest.mark.parametrize("kind", [Liar, Exits, Masked, Denies])
def test_objects_that_raise_when_they_are_looked_at_are_named(kind: type) -> None:
    value, data = capture().value(kind())
    assert data is None
    assert kind.__qualname__ in value.text
    assert isinstance(capture().scalar("name", kind()), str)


class Attentive(Redactor):
    """Knows how much text it was made to read."""

    longest = 0

    def text(self, text: str) -> str:
        self.longest = max(self.longest, len(text))
        return super().text(text)


class Unprintable(dict[int, None]):
    def __repr__(self) -> str:
        raise AssertionError("the whole of it is read")


def test_an_attributes_long_text_or_container_costs_no_more_than_what_is_shown() -> None:
    redactor = Attentive()
    assert len(str(capture(redactor=redactor).scalar("text", "x" * 1_000_000))) == 1024
    assert redactor.longest < 10_000
    numbers = capture().scalar("numbers", Unprintable.fromkeys(range(1_000)))
    assert str(numbers).startswith("Unprintable of 1,000: 0: None, 1: None")


class Table:
    """As much of a data frame as matters."""

    def __init__(self, rows: int, **columns: str) -> None:
        self.rows = rows
        self._columns = columns
        self.columns = list(columns)
        self.shape = (rows, len(columns))

    def head(self, count: int) -> Table:
        return Table(min(count, self.rows), **self._columns)

    def assign(self, **columns: str) -> Table:
        return Table(self.rows, **{**self._columns, **columns})

    def _repr_html_(self) -> str:
        return f"<table>{self._columns} x {self.rows}</table>"

    def __repr__(self) -> str:
        return f"{self._columns} x {self.rows}"


def test_a_tables_secret_columns_are_masked_wherever_it_is_shown() -> None:
    table = Table(5_000, user="ann", password="hunter2")
    value, _ = capture().value(table)
    assert value.mime == "text/html"
    assert "ann" in value.text
    assert "[redacted]" in value.text
    assert "first 20 of 5,000 rows" in value.text
    nested, _ = capture().value({"users": table})
    for text in (value.text, nested.text, str(capture().scalar("users", table))):
        assert "hunter2" not in text


def test_of_a_table_that_cannot_be_masked_the_columns_are_named() -> None:
    class Foreign(Table):
        def head(self, count: int) -> Any:
            raise NotImplementedError

    value, _ = capture().value(Foreign(5, user="ann", password="hunter2"))
    assert value.text.endswith(".Foreign with secret columns (password), not shown>")


def test_secret_rows_of_a_table_are_masked() -> None:
    """A row of a data frame, its transpose, and one with an index of several levels."""
    pandas = pytest.importorskip("pandas", reason="needs pandas: pip install 'wsmonitor[pandas]'")
    frame = pandas.DataFrame({"user": ["ann"], "password": ["hunter2"]})
    for table in (frame.T, frame.iloc[0], frame.stack(), frame.iloc[0][["password"]]):
        for text in (
            capture().value(table)[0].text,
            capture().value([table])[0].text,
            str(capture().scalar("t", table)),
        ):
            assert "hunter2" not in text
            assert "[redacted]" in text
    assert "ann" in capture().value(frame.T)[0].text
    assert capture().value(frame["password"])[0].text == "password: [redacted]"


@pytest.mark.parametrize(
    "text", ["password=hunter2\nand more", "a\r\n\ttoken: hunter2\r\n", "é\npwd='hunter2'"]
)
def test_bytes_that_are_text_are_redacted_as_text(text: str) -> None:
    value, upload = capture().value(text.encode())
    assert value.mime == "text/plain"
    assert upload is None
    assert "hunter2" not in value.text
    assert "[redacted]" in value.text


def test_bytes_with_control_characters_are_redacted_as_well() -> None:
    value, upload = capture().value(b"\x1b[31mpassword=hunter2\x1b[0m")
    assert value.mime == "application/octet-stream"
    assert upload is not None
    assert b"hunter2" not in upload
    plain = bytes(range(128))
    assert capture().value(plain)[1] == plain


# ---------------------------------------------------------------------- secrets at a cut


SECRETS = (
    "postgres://ann:hunter2-hunter2-hunter2@db/x",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
    "ghp_a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2",
)


class Says:
    """An object with this ``repr``."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("left", [20, 30])
def test_a_secret_that_a_cut_goes_through_is_recognised_and_not_shown_in_part(secret: str, left: int) -> None:
    """What is left of a password before the cut could be all of it."""

    def at(cut: int) -> str:
        return " " * (cut - left) + secret

    limits = ValueLimits(inline=3000, size=3500, items=3, text=2000)
    small = capture(limits)
    crowd = [at(100), 1, 2, 3, 4]
    shown = [
        small.value(at(1500) + " " * 4000)[0].text,  # a long text: of it the beginning
        small.value(Says(at(2000)))[0].text,
        small.value([at(1024).encode()])[0].text,
        small.value([Says(at(1000))])[0].text,
        small.value(crowd)[0].text,
        small.value({at(80): 1, **dict.fromkeys(range(5))})[0].text,
        str(small.scalar("k", Says(at(1024)))),
        str(small.scalar("k", at(1024))),
        small.text(at(500), 500),
    ]
    telling = secret[: left - 2].removeprefix("postgres://ann:")
    for text in shown:
        assert telling not in text
        assert text.strip()


# ---------------------------------------------------------------------- at the edges


def test_text_without_a_utf8_form_can_be_sent() -> None:
    value, _ = capture().value("a\udc80ü")
    assert value.text == "a?ü"


@pytest.mark.parametrize("look", ["value", "scalar", "repr"])
def test_an_interrupt_from_the_keyboard_is_the_programs(look: str) -> None:
    class Interrupted:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    looks: dict[str, Any] = {
        "value": lambda: capture().value(Interrupted()),
        "scalar": lambda: capture().scalar("name", Interrupted()),
        "repr": lambda: safe_repr(Interrupted()),
    }
    with pytest.raises(KeyboardInterrupt):
        looks[look]()


def test_what_is_encoded_already_keeps_its_references_unless_it_is_too_large() -> None:
    parts = {"a" * 64: 100_000}
    value, upload = capture().encoded("application/x", b"{}", parts)
    assert (value.mime, value.text, dict(value.parts), upload) == ("application/x", "{}", parts, None)
    assert not capture().encoded("application/x", b"{}", {})[0].parts
    value, upload = capture(ValueLimits(size=1000, inline=500)).encoded("application/x", b"x" * 1001, parts)
    assert (value.mime, dict(value.parts), upload) == ("text/plain", {}, None)
    assert value.text == "x" * 300 + "\n… not sent: 1,001 bytes, the limit is 1,000"
    value, _ = capture(ValueLimits(size=1000)).encoded("application/octet-stream", b"x" * 1001, {})
    assert value.text == "\n… not sent: 1,001 bytes, the limit is 1,000", "of bytes nothing is shown"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (True, True),
        (17, 17),
        (0.5, 0.5),
        (2**60, str(2**60)),
        ("two\nlines", "two\nlines"),
        ([1, "a", True], [1, "a", True]),
        ((1, None), [1, "None"]),
        (list(range(70)), list(range(64))),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("x" * 2000), "x" * 1023 + "…"),
        ({"a": 1}, "{'a': 1}"),
        (Says("a thing"), "a thing"),
    ],
)
def test_an_attribute_is_a_scalar_or_a_list_of_them(obj: object, expected: object) -> None:
    assert capture().scalar("k", obj) == expected


def test_under_a_secret_key_an_attribute_is_a_flag_or_nothing() -> None:
    assert capture().scalar("api_key", "x") == "[redacted]"
    assert capture().scalar("api_key", ["x"]) == "[redacted]"
    assert capture().scalar("password", True) is True


def test_under_a_secret_key_only_what_cannot_be_one_is_shown() -> None:
    given = {"token": None, "password": False, "secret": 0.5, "pwd": 12, "cookie": 10_000_000, "api_key": [1]}
    hidden = {"cookie": "[redacted]", "api_key": "[redacted]"}
    assert shown(given) == {**given, **hidden}


def test_what_is_a_class_is_named_and_not_looked_into() -> None:
    class Shaped:
        shape = ()

        def item(self) -> int:
            raise AssertionError("it is no array")

        def head(self) -> None: ...
        def _repr_html_(self) -> str: ...  # type: ignore[empty-body]

    name = Shaped.__qualname__
    assert name in capture().value(Shaped)[0].text
    assert shown([Shaped, Row, Config]) == [name, "Row", "Config"]


@pytest.mark.parametrize(
    ("html", "length", "rendered"),
    [
        ("<b>x</b>", None, True),
        (7, None, False),
        (None, None, False),
        ("x" * 300_000, None, False),
        ("<b>x</b>", 10_000, True),
        ("<b>x</b>", 10_001, False),
        (ValueError(), None, False),
    ],
)
def test_html_is_shown_if_it_is_some_and_has_a_bound(html: Any, length: int | None, rendered: bool) -> None:
    class Rich:
        def _repr_html_(self) -> Any:
            if isinstance(html, Exception):
                raise html
            return html

        def __repr__(self) -> str:
            return "Rich()"

    class Sized(Rich):
        def __len__(self) -> int:
            assert length is not None
            return length

    value, _ = capture().value(Rich() if length is None else Sized())
    assert (value.mime, value.text) == (("text/html", html) if rendered else ("text/plain", "Rich()"))


def test_numbers_of_arrays_are_numbers_and_other_arrays_are_not() -> None:
    class Array:
        def __init__(self, item: Any, shape: tuple[int, ...] = ()) -> None:
            self.shape = shape
            self._item = item

        def item(self) -> Any:
            if isinstance(self._item, Exception):
                raise self._item
            return self._item

        def __repr__(self) -> str:
            return "Array"

    assert shown([Array(True), Array("x"), Array(2**60)]) == [True, "x", str(2**60)]
    assert shown([Array(1, (1,)), Array(object()), Array(RuntimeError("gone"))]) == ["Array"] * 3


def test_records_of_any_library_are_shown_with_what_they_show_themselves() -> None:
    class Attribute:
        def __init__(self, name: str, *, show: bool = True) -> None:
            self.name, self.repr = name, show

    class Attrs:
        """As the library attrs makes classes."""

        __attrs_attrs__ = (Attribute("a"), Attribute("b", show=False), Attribute("unset"))

        def __init__(self) -> None:
            self.a, self.b = 1, 2

    assert shown(Attrs()) == {"a": 1}
    assert shown({"x": Attrs()}) == {"x": {"a": 1}}


def test_other_leaves_are_text() -> None:
    given = [re.compile("a+"), bytearray(b"\xff"), -(2**60), 10**4000, datetime.time(1, 2)]
    assert shown(given) == ["a+", "\\xff", str(-(2**60)), "an integer of 13,288 bits", "01:02:00"]


def test_a_table_whose_labels_cannot_be_had_is_shown_as_any_object() -> None:
    class Odd:
        def head(self, count: int) -> None: ...

        @property
        def columns(self) -> Any:
            raise RuntimeError("no")

        def __repr__(self) -> str:
            return "Odd()"

    class Method(Odd):
        def columns(self) -> Any:  # type: ignore[override]
            raise AssertionError("it is not called")

    assert capture().value(Odd())[0].text == "Odd()"
    assert capture().value(Method())[0].text == "Odd()"


def test_of_rows_that_cannot_be_masked_the_labels_are_named() -> None:
    class Foreign(Table):
        index = ("user", ("db", "password"))

        def head(self, count: int) -> Any:
            raise NotImplementedError

    value, _ = capture().value(Foreign(5, user="ann"))
    assert "with secret rows (('db', 'password')), not shown>" in value.text


def test_many_long_texts_are_bounded_by_their_bytes() -> None:
    value, upload = capture(ValueLimits(size=1000)).value(["x" * 400] * 3)
    assert upload is None
    assert value.mime == "text/plain"
    assert "only the beginning is shown: more than 1,000 bytes" in value.text


def test_the_beginning_of_a_container_is_twenty_members_at_the_most() -> None:
    small = capture(ValueLimits(items=2))
    many, _ = small.value({n: [n] for n in range(100)})
    assert many.text.startswith("dict of 100: 0: <list>, 1: <list>")
    assert "19: <list>\n" in many.text
    assert "20:" not in many.text
    few, _ = small.value([None, True, "a", 0.5])
    assert few.text.startswith("list of 4: None, True, 'a', 0.5\n")
    listed, _ = small.value(range(1000))
    assert ", 19\n" in listed.text


def test_a_container_without_an_end_is_named() -> None:
    class Endless(deque[int]):
        def __len__(self) -> int:
            raise OverflowError

    value, _ = capture(ValueLimits(items=1)).value(Endless([1, 2, 3]))
    assert "Endless object>" in value.text


def test_large_bytes_in_every_form_are_told_by_their_size() -> None:
    small = capture(ValueLimits(size=100))
    for data in (bytes(200), bytearray(200), memoryview(bytes(200)), memoryview(bytes(800)).cast("Q")[::4]):
        text = small.value(data)[0].text
        assert text == "200 bytes, not sent: the limit is 100"


def test_a_long_text_is_sent_apart_and_begins_with_whole_characters() -> None:
    text = "aü" * 1000
    value, upload = capture(ValueLimits(inline=101)).value(text)
    assert (value.text, value.truncated, value.size) == ("aü" * 33 + "a", True, 3000)
    assert upload == text.encode()
    value, upload = capture(ValueLimits(size=10)).encoded("text/plain", b"twelve bytes", {})
    assert value.text == "twelve bytes\n… not sent: 12 bytes, the limit is 10"
