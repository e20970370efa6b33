"""Taking secrets out of what is published, on the producer's side, before anything is kept or sent.

Two rules. *By key*: the value under a key such as ``password`` or ``api_key`` is replaced whole.
*By look*: within a text, what looks like a credential (cloud keys, tokens of code hosts, JSON Web
Tokens, private key blocks, URLs with a password, ``token=…`` assignments) is replaced where it stands.
This is a net, not a guarantee: a secret without a telling key or look passes. See ``docs/`` for what is
covered.

Every pattern is bounded, and is tried only when a literal that it needs occurs: a large text
without secrets costs a few substring searches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

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
    (?P<mid> ["'\]]{0,3} \s{0,8} (?: => | := | = | : ) \s{0,8} )
    (?P<value> "(?:[^"\\\n]|\\.){1,4096}"? | '(?:[^'\\\n]|\\.){1,4096}'?
             | (?:bearer|basic|token)\s{1,4}[^\s,;"'<>]{1,4096}
             | [^\s,;&"'<>()\[\]{}]{1,4096} )
    """
)
_ASSIGNED_NEEDS: Final = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "key",
    "credential",
    "authorization",
    "cookie",
)
_HARMLESS: Final = re.compile(
    r"(?i)[\"']?(?:str|int|bytes|float|bool|none|null|true|false|any|dict|list)[\"']?:?"
)
_SHORT_NUMBER: Final = re.compile(r"\d{1,6}(?:\.\d{1,6})?")

# (literals of which one must occur, pattern, replacement)
_LOOKS: Final[tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]] = (
    (
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,20000}?"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=-----BEGIN ))"
        ),
        REDACTED,
    ),
    (
        ("://",),
        re.compile(r"(?P<keep>://[^\s/@:\"']{0,256}:)[^\s/@\"']{1,512}(?=@)"),
        rf"\g<keep>{REDACTED}",
    ),
    (
        ("eyJ",),
        re.compile(
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,8192}\.[A-Za-z0-9_-]{4,16384}\.[A-Za-z0-9_-]{0,4096}"
        ),
        REDACTED,
    ),
    (("AKIA", "ASIA"), re.compile(r"(?<![A-Za-z0-9])A(?:KIA|SIA)[0-9A-Z]{16}(?![A-Za-z0-9])"), REDACTED),
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{16,255}"),
        REDACTED,
    ),
    (("sk-", "rk-"), re.compile(r"(?<![A-Za-z0-9_-])[sr]k-[A-Za-z0-9_-]{16,512}"), REDACTED),
    (
        ("sk_live_", "sk_test_", "rk_live_"),
        re.compile(r"(?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{10,255}"),
        REDACTED,
    ),
    (("glpat-",), re.compile(r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,255}"), REDACTED),
    (("hf_",), re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,255}"), REDACTED),
    (("npm_",), re.compile(r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{30,255}"), REDACTED),
    (("pypi-",), re.compile(r"(?<![A-Za-z0-9])pypi-[A-Za-z0-9_-]{30,512}"), REDACTED),
    (("xox",), re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{8,255}"), REDACTED),
    (("AIza",), re.compile(r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{30,64}"), REDACTED),
    (
        ("bearer ", "Bearer ", "BEARER "),
        re.compile(r"(?P<keep>\b[Bb](?:earer|EARER) {1,4})[A-Za-z0-9._~+/=-]{8,8192}"),
        rf"\g<keep>{REDACTED}",
    ),
)


def _assigned(match: re.Match[str]) -> str:
    value = match["value"]
    if value.startswith((REDACTED, f'"{REDACTED}', f"'{REDACTED}")) or _HARMLESS.fullmatch(value):
        return match[0]
    # `token: 17` in a log is a count or an index; a password of digits is a password.
    if match["key"].lower() in {"token", "cookie"} and _SHORT_NUMBER.fullmatch(value):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    end = quote if quote and len(value) > 1 and value.endswith(quote) else ""
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

    def text(self, text: str) -> str:
        """*text* without what looks like a secret."""
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        if not self._defaults or len(text) < 6:
            return text
        for needs, pattern, replacement in _LOOKS:
            if any(literal in text for literal in needs):
                text = pattern.sub(replacement, text)
        if "=" in text or ":" in text:
            lower = text.lower()
            if any(literal in lower for literal in _ASSIGNED_NEEDS):
                text = _ASSIGNED.sub(_assigned, text)
        return text


class NoRedactor(Redactor):
    """Leaves everything as it is: what ``redact=False`` means."""

    def __init__(self) -> None:
        super().__init__(defaults=False)

    def secret_key(self, key: str) -> bool:
        return False

    def text(self, text: str) -> str:
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
