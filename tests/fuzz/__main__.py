"""``python -m tests.fuzz``: go on from the corpus for some time.

By plain mutation of what is in the corpus, or with ``--atheris`` (``pip install atheris``, Linux) guided by
coverage. What fails is written to a file, and its traceback shown; then it belongs into the corpus.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .targets import targets

CORPUS = Path(__file__).parent / "corpus"


PIECES = (
    b'"',
    b"{",
    b"[",
    b"\\u0000",
    b"-1",
    b"1e999",
    b"null",
    b"\xff",
    b"\r\n\r\n",
    b"\x81\x80\x00\x00\x00\x00",
)


def mutated(data: bytes, pool: Sequence[bytes], rng: random.Random) -> bytes:
    """*data* with some bytes, pieces, or another of the *pool* in it."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(made))
        match rng.randrange(7):
            case 0:
                made[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del made[at : at + rng.randint(1, 16)]
            case 2:
                made[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                other = rng.choice(pool)
                start = rng.randint(0, len(other))
                made[at:at] = other[start : start + rng.randint(1, 200)]
            case 4:
                made[at:at] = made[at : at + rng.randint(1, 40)] * rng.randint(1, 30)
            case 5:
                made[at:at] = rng.choice(
                    [b'"', b"{", b"[", b"\\u0000", b"-1", b"1e999", b"null", b"\xff", b"\r\n\r\n"]
                )
            case _ if made:
                at %= len(made)
                made[at] ^= 1 << rng.randrange(8)
    return bytes(made)


def plainly(
    target: Callable[[bytes], None], pool: list[bytes], seconds: float, seed: int
) -> tuple[int, bytes | None]:
    """Try mutations for *seconds*. How many that were, and the one that failed."""
    rng = random.Random(seed)
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutated(rng.choice(pool), pool, rng)
        tried += 1
        try:
            target(data)
        except Exception:
            traceback.print_exc()
            return tried, data
    return tried, None


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("target", nargs="*", help="codec, door, frames, messages; all by default")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target (default 30)")
    parser.add_argument("--seed", type=int, default=None, help="for the same run again")
    parser.add_argument(
        "--atheris", action="store_true", help="one target, guided by coverage, without an end"
    )
    options = parser.parse_args(argv)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    with targets() as found:
        unknown = set(options.target) - set(found)
        if unknown:
            parser.error(f"no such target: {', '.join(sorted(unknown))} (there are {', '.join(found)})")
        chosen = options.target or list(found)
        if options.atheris:
            return guided(found[chosen[0]], CORPUS / chosen[0])
        for name in chosen:
            pool = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
            tried, failed = plainly(found[name], pool, options.seconds, seed)
            if failed is not None:
                place = Path(f"fuzz-{name}-{seed}")
                place.write_bytes(failed)
                print(f"{name}: input {tried:,} of seed {seed} failed; it is in {place}")
                return 1
            print(f"{name}: {tried:,} inputs in {options.seconds:g} s (seed {seed}): nothing found")
    return 0


def guided(target: Callable[[bytes], None], corpus: Path) -> int:
    """Let atheris do it. It ends the process itself when it has found something, or is interrupted."""
    import atheris

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(corpus)], target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
