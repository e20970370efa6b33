"""Taking secrets out of what is published, on the producer's side, before anything is kept or sent.

Two rules. *By key*: the value under a key such as ``password`` or ``api_key`` is replaced whole.
*By look*: within a text, what looks like a credential (cloud keys, tokens of code hosts, JSON Web
Tokens, private key blocks, URLs with a password, ``token=…`` assignments) is replaced where it stands.
This is a net, not a guarantee: a secret without a telling key or look passes. See ``docs/`` for what is
covered.

Every pattern is bounded, and is tried only where a literal occurs with which it begins: a large text
costs some substring searches. It is read in windows, between which the caller may let others run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

REDACTED: Final = "[redacted]"

DEFAULT_KEYS: Final = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "account_key",
    "credential",
    "credentials",
    "authorization",
    "cookie",
)
"""Keys whose values are secret: compared word by word, so ``DB_PASSWORD`` and ``authToken`` match
``password`` and ``token``, and ``max_tokens`` matches nothing."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MAX_KEY: Final = 128  # longer keys are not names

_ASSIGNED: Final = re.compile(
    r"""(?ix)
    (?P<key> password | passwd | pwd | passphrase | secret | token | api[_-]?key | access[_-]?key
           | private[_-]?key | account[_-]?key | secret[_-]?key | credentials? | authorization | cookie )
    (?P<mid> ["'\]\\]{0,9} \s{0,8} (?: => | := | = | : ) \s{0,8} )
    (?P<value> \\{1,7}["'][^"'\\\n]{1,4096}(?:\\{1,7}["'])?  # in a text within a text
             | "(?:[^"\\\n]|\\.){1,4096}"? | '(?:[^'\\\n]|\\.){1,4096}'?
             | (?:bearer|basic|token)\s{1,4}[^\s,;"'<>]{1,4096}
             | [^\s,;&"'<>()\[\]{}]{1,4096} )
    """
)
# What a key begins with, or (`key`) ends with after one of the words of `_BEFORE_KEY`; in lower case.
_ANCHORS: Final = (b"pass", b"pwd", b"secret", b"token", b"credential", b"authorization", b"cookie")
_BEFORE_KEY: Final = tuple(
    word + joint for word in (b"api", b"access", b"private", b"account") for joint in (b"", b"_", b"-")
)
_WINDOW: Final = 64 * 1024
"""Characters that are searched at a time."""
_MARGIN: Final = 16
"""Characters that a window is read beyond its end: longer than any key."""
_HARMLESS: Final = re.compile(
    r"(?i)[\"']?(?:str|int|bytes|float|bool|none|null|true|false|any|dict|list)[\"']?:?"
)
_SHORT_NUMBER: Final = re.compile(r"\d{1,6}(?:\.\d{1,6})?")


class _Look(NamedTuple):
    """A kind of secret that is known by its look.

    Attributes:
        anchors: a match begins with one of these (after what the pattern looks back at).
        also: what must occur as well for the pattern to match anywhere; "" for nothing more.
        pattern: has the group ``keep`` where something of the match stays.
    """

    anchors: tuple[str, ...]
    also: str
    pattern: re.Pattern[str]


_LOOKS: Final = (
    _Look(
        ("-----BEGIN ",),
        "PRIVATE KEY",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,20000}?"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=-----BEGIN ))"
        ),
    ),
    _Look(("://",), "@", re.compile(r"(?P<keep>://[^\s/@:\"']{0,256}:)[^\s/@\"']{1,512}(?=@)")),
    _Look(
        ("eyJ",),
        ".",
        re.compile(
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,8192}\.[A-Za-z0-9_-]{4,16384}\.[A-Za-z0-9_-]{0,4096}"
        ),
    ),
    _Look(("AKIA", "ASIA"), "", re.compile(r"(?<![A-Za-z0-9])A(?:KIA|SIA)[0-9A-Z]{16}(?![A-Za-z0-9])")),
    _Look(
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        "_",
        re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,255}"),
    ),
    _Look(("sk-", "rk-"), "-", re.compile(r"(?<![A-Za-z0-9_-])[sr]k-[A-Za-z0-9_-]{16,512}")),
    _Look(
        ("sk_live_", "sk_test_", "rk_live_", "rk_test_"),
        "_",
        re.compile(r"(?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{10,255}"),
    ),
    _Look(("glpat-",), "-", re.compile(r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,255}")),
    _Look(("hf_",), "_", re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,255}")),
    _Look(("npm_",), "_", re.compile(r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{30,255}")),
    _Look(("pypi-",), "-", re.compile(r"(?<![A-Za-z0-9])pypi-[A-Za-z0-9_-]{30,512}")),
    _Look(("xox",), "-", re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{8,255}")),
    _Look(("AIza",), "", re.compile(r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{30,64}")),
    _Look(
        ("bearer ", "Bearer ", "BEARER ", "bEARER "),
        "",
        re.compile(r"(?P<keep>\b[Bb](?:earer|EARER) {1,4})[A-Za-z0-9._~+/=-]{8,8192}"),
    ),
)


LONGEST_KEY: Final = 20_000
"""Characters of the longest key block."""


class KeyBlocks:
    """Private key blocks in lines that come one by one, as a log shows them: no line of one may be seen."""

    def __init__(self) -> None:
        self._left = 0  # characters that may still belong to the block that has begun

    def concerned(self, text: str) -> bool:
        """Whether `line` has anything to do in *text*: a block goes on, or one may begin."""
        return self._left > 0 or "PRIVATE KEY" in text

    def line(self, line: str) -> str | None:
        """What may be shown of the next line: it, a word in place of a block, or None for nothing."""
        if "-----BEGIN " in line and "PRIVATE KEY" in line:
            self._left = 0 if "-----END " in line else LONGEST_KEY
            return REDACTED
        if not self._left:
            return line
        self._left = 0 if "-----END " in line else max(0, self._left - len(line) - 1)
        return None


def _hidden(match: re.Match[str]) -> str:
    return match.groupdict().get("keep", "") + REDACTED


def _assigned(match: re.Match[str]) -> str:
    value = match["value"]
    bare = value.lstrip("\\\"'")
    if bare.startswith(REDACTED) or _HARMLESS.fullmatch(value):
        return match[0]
    # `token: 17` in a log is a count or an index; a password of digits is a password.
    if match["key"].lower() in {"token", "cookie"} and _SHORT_NUMBER.fullmatch(value):
        return match[0]
    quote = value[: len(value) - len(bare)] if value[0] in "\\\"'" else ""
    end = quote if quote and len(value) > len(quote) and value.endswith(quote) else ""
    return f"{match['key']}{match['mid']}{quote}{REDACTED}{end}"


class Redactor:
    """Replaces secrets in keys' values and in texts.

    Args:
        keys: further keys whose values are secret, compared word by word as `DEFAULT_KEYS` are.
        patterns: further regular expressions; what they match is replaced.
        defaults: whether `DEFAULT_KEYS` and the built-in looks are used as well.

    Raises:
        TypeError: *keys* or *patterns* is one string, or holds something else than strings or patterns.
        re.error: a pattern is not a regular expression.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        defaults: bool = True,
    ) -> None:
        if isinstance(keys, str) or isinstance(patterns, str):
            raise TypeError("keys and patterns must be collections of strings, not one string")
        wanted = [*(DEFAULT_KEYS if defaults else ()), *keys]
        for key in wanted:
            if not isinstance(key, str):
                raise TypeError(f"a key must be a string, not {type(key).__name__}")
        self._keys = tuple(words for words in (self._words(key) for key in wanted) if words)
        self._patterns = tuple(re.compile(pattern) for pattern in patterns)
        self._defaults = defaults
        self._known: dict[str, bool] = {}

    @property
    def finds_keys(self) -> bool:
        """Whether private key blocks are taken out."""
        return self._defaults

    @staticmethod
    def _words(key: str) -> tuple[str, ...]:
        return tuple(word.lower() for word in _WORDS.findall(key[:_MAX_KEY]))

    def secret_key(self, key: str) -> bool:
        """Whether the value under *key* is secret."""
        known = self._known.get(key)
        if known is None:
            words = self._words(key)
            known = any(
                words[at : at + len(wanted)] == wanted
                for wanted in self._keys
                for at in range(len(words) - len(wanted) + 1)
            )
            if len(self._known) < 4096:  # keys are few; a map with generated keys must not grow it
                self._known[key] = known
        return known

    def text(self, text: str, pause: Callable[[], None] | None = None) -> str:
        """*text* without what looks like a secret.

        Args:
            pause: called often, so that a long text need not be read in one go.
        """
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        if not self._defaults or len(text) < 6:
            return text
        pause = pause or _go_on
        for anchors, also, look in _LOOKS:
            if also in text:
                text = _replaced(text, look, _hidden, _places(text, anchors, pause))
        if "=" in text or ":" in text:
            text = _replaced(text, _ASSIGNED, _assigned, _keys(text, pause))
        return text


def _go_on() -> None:
    """Let nobody else run."""


def _replaced(
    text: str, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str], places: Iterable[int]
) -> str:
    """What ``pattern.sub(new, text)`` gives, if each match begins at one of *places*, which ascend."""
    pieces = []
    done = 0
    for place in places:
        if place < done:
            continue
        match = pattern.match(text, place)
        if match is not None:
            pieces += [text[done:place], new(match)]
            done = match.end()
    return "".join([*pieces, text[done:]]) if pieces else text


def _places(text: str, anchors: tuple[str, ...], pause: Callable[[], None]) -> Iterator[int]:
    """Where one of *anchors* stands, ascending."""
    for start in range(0, len(text), _WINDOW):
        found = []
        for anchor in anchors:
            end = start + _WINDOW + len(anchor) - 1
            at = text.find(anchor, start, end)
            while at >= 0:
                found.append(at)
                at = text.find(anchor, at + 1, end)
        yield from sorted(found)
        pause()


def _keys(text: str, pause: Callable[[], None]) -> Iterator[int]:
    """Where a key of an assignment may begin, ascending."""
    for start in range(0, len(text), _WINDOW):
        window = text[start : start + _WINDOW + _MARGIN]
        data = window.encode("utf-8", "surrogatepass").lower()
        found = set()
        for anchor in _ANCHORS:
            at = data.find(anchor)
            while at >= 0:
                found.add(at)
                at = data.find(anchor, at + 1)
        at = data.find(b"key")
        while at >= 0:
            if data.endswith(_BEFORE_KEY, 0, at):
                found.update(at - len(word) for word in _BEFORE_KEY if data.endswith(word, 0, at))
            at = data.find(b"key", at + 1)
        whole = len(data) == len(window)
        last, place = 0, start
        for at in sorted(found):
            # Beyond ASCII, a character has several bytes.
            place += at - last if whole else len(data[last:at].decode("utf-8", "surrogatepass"))
            last = at
            if place < start + _WINDOW:
                yield place
        pause()


class NoRedactor(Redactor):
    """Leaves everything as it is: what ``redact=False`` means."""

    def __init__(self) -> None:
        super().__init__(defaults=False)

    def secret_key(self, key: str) -> bool:
        return False

    def text(self, text: str, pause: Callable[[], None] | None = None) -> str:
        return text


def make_redactor(redact: bool | Redactor | Iterable[str]) -> Redactor:
    """What ``redact=`` of a session means: True the defaults, False none, patterns besides the defaults.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(redact, Redactor):
        return redact
    if redact is True:
        return Redactor()
    if redact is False:
        return NoRedactor()
    if isinstance(redact, (list, tuple, set, frozenset)):
        return Redactor(patterns=redact)
    raise TypeError(f"redact must be a bool, a Redactor or a list of patterns, not {type(redact).__name__}")
