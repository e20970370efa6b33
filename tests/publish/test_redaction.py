"""What is taken out, what is left in, and that it does not take long."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsmonitor.publish import redaction
from wsmonitor.publish.redaction import LONGEST_KEY, REDACTED, KeyBlocks, NoRedactor, Redactor, make_redactor

REDACTOR = Redactor()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "db_password", "dbPassword", "DB-PASSWORD", "api_key", "apiKey", "API_KEY",
        "apikey", "token", "authToken", "access_token", "GITHUB_TOKEN", "secret", "client_secret",
        "AWS_SECRET_ACCESS_KEY", "private_key", "Authorization", "credentials", "passphrase", "Set-Cookie",
    ],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    assert REDACTOR.secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "tokens",
        "max_tokens",
        "tokenizer",
        "n_tokens",
        "keyboard",
        "key",
        "author",
        "secretary",
        "passes",
        "path",
        "x" * 9999,
    ],
)
def test_keys_that_only_look_alike(key: str) -> None:
    assert not REDACTOR.secret_key(key)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("aws AKIAIOSFODNN7EXAMPLE end", "AKIAIOSFODNN7EXAMPLE"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("github_pat_11ABCDEFG0123456789_abcdefghij", "11ABCDEFG0123456789"),
        ("key: sk-proj-abcdefghijklmnop1234", "abcdefghijklmnop"),
        ("sk-ant-api03-abcdefghijklmnop", "abcdefghijklmnop"),
        ("glpat-abcdefghijklmnopqrst", "abcdefghijklmnop"),
        ("xoxb-123456789012-abcdef", "123456789012"),
        ("hf_abcdefghijklmnopqrstuvwx", "abcdefghijklmnop"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuvw", "SyA1234567890"),
        (f"got {JWT} back", "dozjgNryP4J3"),
        (f"file:\n{KEY_BLOCK}\nend", "MIIEowIBAAKCAQEA"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEabc and cut off", "MIIEabc"),
        ("postgres://bob:s3cret@db.example.org/x", "s3cret"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("curl -H 'Authorization: Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
        ("password=hunter2", "hunter2"),
        ("PGPASSWORD='hunter2 with spaces' psql", "with spaces"),
        ('{"client_secret": "hunter2"}', "hunter2"),
        ("api-key: hunter2", "hunter2"),
        ("?access_token=hunter2&x=1", "hunter2"),
        ("os.environ['API_KEY'] = 'hunter2'", "hunter2"),
    ],
)
def test_secrets_in_texts(text: str, secret: str) -> None:
    assert secret in text
    clean = REDACTOR.text(text)
    assert secret not in clean
    assert "[redacted]" in clean
    assert REDACTOR.text(clean) == clean, "once is enough"


@pytest.mark.parametrize(
    "text",
    [
        "rows: 17, columns: 3",
        "task-management-and-some-more-words",
        "total tokens: 12345, tokens=7",
        "token: 42",
        "def f(token: str, password: str) -> None: ...",
        "token = None",
        "https://example.org/path?x=1",
        "https://example.org:8080/@user",
        "the secret of good coffee",
        "eyJust a word",
        "x" * 100,
        "",
    ],
)
def test_what_is_left_as_it_is(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert REDACTOR.text("postgres://bob:s3cret@db/x") == "postgres://bob:[redacted]@db/x"
    assert (
        REDACTOR.text('{"password": "hunter2", "user": "bob"}') == '{"password": "[redacted]", "user": "bob"}'
    )
    assert REDACTOR.text("a=1&token=abcdefgh&b=2") == "a=1&token=[redacted]&b=2"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_text_within_a_text(times: int) -> None:
    text = json.dumps({"token": "hunter2", "user": "bob"})
    for _ in range(times):
        text = json.dumps(text)
    clean = REDACTOR.text(text)
    assert "hunter2" not in clean
    for _ in range(times):
        clean = json.loads(clean)
    assert json.loads(clean) == {"token": "[redacted]", "user": "bob"}


def test_key_blocks_in_lines_that_come_one_by_one() -> None:
    blocks = KeyBlocks()
    assert not blocks.concerned("plain")
    begin, *middle, end = KEY_BLOCK.split("\n")
    assert blocks.concerned(begin)
    assert [blocks.line(line) for line in ("a", begin, *middle, end, "b")] == [
        "a", REDACTED, *[None] * (len(middle) + 1), "b",
    ]  # fmt: skip
    assert not blocks.concerned("b")
    assert blocks.line(KEY_BLOCK.replace("\n", " ")) == REDACTED
    assert blocks.line("behind a whole one") == "behind a whole one"


def test_a_key_block_without_an_end_does_not_hide_for_ever() -> None:
    blocks = KeyBlocks()
    assert blocks.line("-----BEGIN PRIVATE KEY-----") == REDACTED
    hidden = 0
    while blocks.line("x" * 99) is None:
        hidden += 1
        assert blocks.concerned("x") or hidden == LONGEST_KEY // 100
    assert hidden == LONGEST_KEY // 100


def test_own_keys_and_patterns() -> None:
    own = Redactor(keys=["ssn"], patterns=[r"\b\d{3}-\d{2}-\d{4}\b"])
    assert own.secret_key("user_ssn")
    assert own.secret_key("password")
    assert own.text("it is 123-45-6789.") == "it is [redacted]."
    only = Redactor(keys=["ssn"], defaults=False)
    assert not only.secret_key("password")
    assert only.text("password=hunter2") == "password=hunter2"


def test_what_redact_may_be() -> None:
    assert isinstance(make_redactor(False), NoRedactor)
    assert make_redactor(True).secret_key("password")
    assert make_redactor([r"\d+"]).text("a1") == "a[redacted]"
    given = Redactor()
    assert make_redactor(given) is given
    with pytest.raises(TypeError, match="redact must be"):
        make_redactor("yes")
    with pytest.raises(TypeError, match="not one string"):
        Redactor(keys="password")
    with pytest.raises(TypeError, match="key must be a string"):
        Redactor(keys=[3])  # type: ignore[list-item]


@given(st.text(alphabet=st.sampled_from("abAB01=:'\"\\ \n-_./@{}tokenpasswordsecretkeyBEGIN"), max_size=400))
def test_it_never_fails_and_never_grows_without_bound(text: str) -> None:
    assert len(REDACTOR.text(text)) <= len(text) * 12 + 12


PIECES = (
    "password", "Passwd", "passphrase", "secret", "secret_key", "token", "api_key", "API-KEY", "apikey",
    "key", "access", "private-key", "account_", "credentials", "Authorization", "cookie", "=", ": ", " => ",
    ":=", '"', "'", "]", " ", "\n", "hunter2", "17", "None", "Bearer ", "bearer", "abcdefghijklmnopqrst",
    "ABCD0123456789EFGH", "AKIA", "ASIA", "ghp_", "gho_", "github_pat_", "sk-", "rk-", "sk_live_", "glpat-",
    "hf_", "npm_", "pypi-", "xoxb-", "AIza", "eyJ", ".", "_", "-", "://", "bob:", "@", "é", "İ", "中",
    "\U0001f511", "\ud800", "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----",
)  # fmt: skip


def plainly(text: str) -> str:
    """What the patterns say, each tried at every place of the text."""
    for look in redaction._LOOKS:
        text = look.pattern.sub(redaction._hidden, text)
    return redaction._ASSIGNED.sub(redaction._assigned, text)


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(1, 40))
def test_to_look_only_where_a_match_can_begin_misses_none(text: str, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_WINDOW", window)
        assert REDACTOR.text(text) == (plainly(text) if len(text) >= 6 else text)


def test_a_secret_on_a_window_s_edge_is_found_and_others_may_run_between_windows() -> None:
    pauses: list[int] = []
    for shift in range(40):
        text = "é" * (redaction._WINDOW - shift) + " PGPASSWORD='hunter2' " + JWT + "y" * 200_000
        clean = REDACTOR.text(text, lambda: pauses.append(1))
        assert "hunter2" not in clean
        assert JWT not in clean
    assert len(pauses) > 40 * 3


@pytest.mark.parametrize(
    "piece",
    [
        "token", "password: ", "eyJ", "eyJaaaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "://a:", "sk-",
        "key=\"\\", "Bearer ", "x=1; ", "secret", "://", "api_key='a",
    ],
)  # fmt: skip
def test_a_megabyte_of_near_misses_takes_no_time_to_speak_of(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    begun = time.process_time()
    REDACTOR.text(text)
    assert time.process_time() - begun < 5


def test_generated_keys_do_not_grow_the_memory_of_keys() -> None:
    redactor = Redactor()
    for number in range(5_000):
        assert not redactor.secret_key(f"key{number}")
        assert redactor.secret_key(f"password{number}") == redactor.secret_key(f"password{number}")
    assert len(redactor._known) <= 4_096


def test_what_is_switched_off_leaves_everything() -> None:
    off = NoRedactor()
    assert not off.secret_key("password")
    assert off.text("password=hunter2") == "password=hunter2"
    assert (off.finds_keys, Redactor().finds_keys) == (False, True)
