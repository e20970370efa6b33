"""Secrets as they occur, each with a core that must be nowhere afterwards."""

from __future__ import annotations

import itertools
from typing import Final

_numbers: Final = itertools.count(1000)


def core() -> str:
    """Sixteen letters and digits that occur nowhere else: what is searched for."""
    return f"ZQ{next(_numbers):06}XVPLANTW"


def _jwt(mark: str) -> str:
    return f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ{mark}.{mark}_N_XgL0n3I9PlFUP0THsR8U"


def _block(mark: str, kind: str = "RSA PRIVATE KEY") -> str:
    return f"-----BEGIN {kind}-----\nMIIEowIBAAKCAQEA{mark}\n{mark}abcdef\n{mark}==\n-----END {kind}-----"


LOOKS: Final = {
    "password in a URL": lambda m: f"postgresql://bob:{m}@db.example.org:5432/x?sslmode=require",
    "password with specials in a URL": lambda m: f"amqp://bob:{m}%40%2F@queue/",
    "AWS key id": lambda m: f"AKIA{m}",
    "AWS secret": lambda m: f"aws_secret_access_key = {m}/bPxRfiCYEXAMPLEKEY",
    "GitHub token": lambda m: f"ghp_{m}{m}",
    "GitHub fine-grained token": lambda m: f"github_pat_{m}_{m}",
    "GitLab token": lambda m: f"glpat-{m}",
    "OpenAI key": lambda m: f"sk-proj-{m}",
    "Anthropic key": lambda m: f"sk-ant-api03-{m}-AA",
    "Hugging Face token": lambda m: f"hf_{m}{m}",
    "npm token": lambda m: f"npm_{m}{m}",
    "PyPI token": lambda m: f"pypi-AgEIcHlwaS5vcmc{m}{m}",
    "Slack token": lambda m: f"xoxb-123456789012-{m}",
    "Google key": lambda m: f"AIzaSy{m}{m}",
    "Stripe key": lambda m: f"sk_live_{m}",
    "JSON Web Token": _jwt,
    "RSA key": _block,
    "EC key": lambda m: _block(m, "EC PRIVATE KEY"),
    "PKCS 8": lambda m: _block(m, "PRIVATE KEY"),
    "OpenSSH key": lambda m: _block(m, "OPENSSH PRIVATE KEY"),
    "PGP key": lambda m: _block(m, "PGP PRIVATE KEY BLOCK"),
    "key cut off": lambda m: _block(m)[:90],
    "bearer header": lambda m: f"Authorization: Bearer {m}",
    "basic header": lambda m: f"curl -H 'Authorization: Basic {m}=='",
    "cookie": lambda m: f"Set-Cookie: {m}; HttpOnly",
    "assignment": lambda m: f"password={m}",
    "quoted assignment": lambda m: f"PGPASSWORD='{m} with spaces' psql",
    "JSON": lambda m: f'{{"user": "bob", "client_secret": "{m}"}}',
    "YAML": lambda m: f"db:\n  user: bob\n  password: {m}\n",
    "Python": lambda m: f"os.environ['API_KEY'] = '{m}'",
    "dataclass": lambda m: f"Config(host='db', password='{m}', port=5432)",
    "query": lambda m: f"https://example.org/?access_token={m}&x=1",
    "Azure": lambda m: f"AccountName=x;AccountKey={m}==;EndpointSuffix=core.windows.net",
}  # fmt: skip
"""A name for each look, and what makes the text around a core."""
