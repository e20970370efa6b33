"""What a store's URL says, and what is wrong with it; its password is in no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores.redis.address import parse
from wsmonitor_server.stores.redis.link import advice


def test_the_least_that_a_url_may_say() -> None:
    address = parse("redis://localhost")
    assert (address.host, address.port, address.db, address.prefix) == ("localhost", 6379, 0, "wsm:")
    assert (address.username, address.secret(), address.tls) == ("", "", ())
    assert address.shown == "redis://localhost:6379"


def test_everything_that_it_may_say() -> None:
    address = parse(
        "rediss://us%40er:p%2Fw@[::1]:7000/3?prefix=team:&ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k"
    )
    assert (address.scheme, address.host, address.port, address.db) == ("rediss", "::1", 7000, 3)
    assert (address.username, address.secret(), address.prefix) == ("us@er", "p/w", "team:")
    assert dict(address.tls) == {"ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c", "ssl_keyfile": "/k"}
    assert address.shown == "rediss://[::1]:7000/3"
    assert "p/w" not in repr(address)


def test_an_unencrypted_way_to_another_machine_is_pointed_out() -> None:
    assert "unencrypted" in advice(parse("redis://elsewhere"))[0]
    for private in ("rediss://elsewhere", "redis://127.0.0.1", "redis://localhost", "unix:///socket"):
        assert advice(parse(private)) == ()


def test_a_unix_socket() -> None:
    address = parse("unix://:word@/run/my%20redis.sock?db=2")
    assert (address.path, address.host, address.db, address.secret()) == ("/run/my redis.sock", "", 2, "word")
    assert address.shown == "unix:///run/my redis.sock"


def test_sentinels_and_the_name_of_what_they_watch_over(tmp_path: Path) -> None:
    address = parse("redis+sentinel://us:p%2Fw@one,[::1]:7000,three:26380/main")
    assert address.sentinels == (("one", 26379), ("::1", 7000), ("three", 26380))
    assert (address.primary, address.db, address.host) == ("main", 0, "")
    assert (address.username, address.secret(), address.encrypted) == ("us", "p/w", False)
    assert (address.sentinel_username, address.sentinel_secret()) == ("", "")
    assert address.shown == "redis+sentinel://one:26379,[::1]:7000,three:26380/main"
    assert address.hosts == ("one", "::1", "three")
    assert "unencrypted" in advice(address)[0]
    (tmp_path / "word").write_text("w\n")
    address = parse(
        "rediss+sentinel://127.0.0.1/main/3?ssl_ca_certs=/ca&prefix=p:"
        f"&sentinel_username=s&sentinel_password_file={tmp_path / 'word'}"
    )
    assert (address.db, address.prefix, address.encrypted) == (3, "p:", True)
    assert dict(address.tls) == {"ssl_ca_certs": "/ca"}
    assert (address.sentinel_username, address.sentinel_secret()) == ("s", "w")
    assert address.shown == "rediss+sentinel://127.0.0.1:26379/main/3"
    assert advice(address) == ()


@pytest.mark.parametrize("db", ["redis://h/4", "redis://h?db=4", "redis://h/4/?db=4"])
def test_the_database_s_number_is_in_the_path_or_an_option(db: str) -> None:
    assert parse(db).db == 4


def test_the_password_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    address = parse(f"redis://h?password_file={file}")
    with pytest.raises(ConfigurationError, match="cannot read"):
        address.secret()
    file.write_text("first\nnot this\n")
    assert address.secret() == "first"
    file.write_text("")
    assert address.secret() == ""
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="cannot read"):
        address.secret()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://:hidden@h", "has to begin with"),
        ("redis://:hidden@h:x", "the port has to be a number from 1 to 65535"),
        ("redis://:hidden@h:0", "from 1 to 65535"),
        ("redis://:hidden@h:65536", "from 1 to 65535"),
        ("redis://:hidden@h:", "from 1 to 65535"),
        ("redis://:hidden@h:\u0663", "from 1 to 65535"),
        ("redis://:hidden@:6379", "has no host"),
        ("redis://:hidden@::1:6379", "in brackets, as in"),
        ("redis://:hidden@[::1]6379", "in brackets"),
        ("redis://:hidden@[h]:6379", "in brackets"),
        ("redis://:hidden@[::1", "in brackets"),
        # As people paste a password, not encoded: what Python then takes for the port is a part of it.
        ("redis://u:hidden#word@h", "percent-encoded"),
        ("redis://u:hidden/word@h", "percent-encoded"),
        ("redis://u:hidden?word@h", "percent-encoded"),
        ("redis://u:hid[den@h", "percent-encoded"),
        ("redis+sentinel://u:hidden/word@h/main", "percent-encoded"),
        ("redis://u:hidden", "percent-encoded"),
        ("redis://:hidden@h/0#1", "percent-encoded"),
        ("redis://:hidden@a h", "a blank"),
        ("redis://:hidden@h ", "a blank"),
        ("redis://:hidden@h/1?db=2", "names two databases: '1' and '2'"),
        ("redis://:hidden@h?prefix=a:&prefix=b:", "option 'prefix' is given twice"),
        ("rediss://:hidden@h?ssl_keyfile=/k", "no use without ssl_certfile"),
        ("redis://:hidden@", "needs a host"),
        ("redis:///0", "needs a host"),
        ("unix://:hidden@", "absolute path"),
        ("unix://h/", "absolute path"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///", "absolute path"),
        ("redis://:hidden@h?timeout=3", "unknown option 'timeout' .known: prefix, db, password_file"),
        ("redis://:hidden@h?ssl_ca_certs=/x", "unknown option 'ssl_ca_certs' .for rediss:// only."),
        ("rediss://:hidden@h?ssl=1", "ssl_ca_certs"),
        ("redis://:hidden@h?prefix=", "option 'prefix' is empty"),
        ("redis://:hidden@h?password_file=/x", "not both"),
        ("redis://:hidden@h/one", "has to be a number"),
        ("redis+sentinel://:hidden@h", "needs the primary's name"),
        ("redis+sentinel://:hidden@h,/main", "a Sentinel has no host"),
        ("redis+sentinel://:hidden@h:x/main", "a Sentinel: the port has to be a number"),
        ("redis+sentinel://:hidden@h/main/one", "has to be a number"),
        ("redis+sentinel://:hidden@h/main?ssl_ca_certs=/x", "unknown option 'ssl_ca_certs'"),
        ("redis://:hidden@h?sentinel_username=x", "unknown option 'sentinel_username'"),
        ("unix+sentinel://:hidden@h/main", "has to begin with"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse(url)
    assert "hidden" not in str(caught.value)
