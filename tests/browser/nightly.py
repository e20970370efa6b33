"""The session in the documentation's pictures, a program like any user's.

It computes moving means of made-up sales, stands still in the midst of it until it gets a line on its
standard input, and fails.
"""

from __future__ import annotations

import math
import sys
import time

import wsmonitor as wm

DAYS = 4_000
PACE = 0.4  # seconds per piece of work


@wm.step(name="fetch part", retries=1)
def fetch(number: int, tried: list[int]) -> list[float]:
    tried.append(number)
    time.sleep(PACE * 2)
    if number == 1 and tried.count(1) == 1:
        raise TimeoutError("no answer within 30 s")
    return [100 + 40 * math.sin(day / 7) + number for day in range(DAYS)]


def main() -> None:
    sales: list[float] = []
    with wm.session("nightly-etl", tags=("nightly", "sales")) as session:
        session.metrics["rows"] = 18_402_113
        with session.chain("load") as load:
            with load.step("read manifest", input={"path": "sales/manifest.json"}) as step:
                time.sleep(PACE)
                step.output = {"parts": 2}
            with load.step("fetch parts"):
                tried: list[int] = []
                for number in range(2):
                    sales += fetch(number, tried)
            with load.step("validate schema"):
                time.sleep(PACE)
        with session.chain("features") as features:
            with features.step("join customers"):
                time.sleep(PACE * 3)
            with features.step("rolling windows") as windows:
                for done, days in enumerate((7, 30, 90)):
                    windows.progress(done, 3, "windows")
                    with windows.step(f"window {days}d", kind="tool", input={"days": days}) as step:
                        step.attributes["engine"] = "plain Python"
                        means = []
                        for day in step.track(range(100), unit="%"):
                            time.sleep(PACE / 40)
                            chunk = sales[day * 40 : day * 40 + days]
                            means.append(
                                {"day": day, "mean": round(sum(chunk) / len(chunk), 2), "days": days}
                            )
                            if day % 10 == 0:
                                step.log(f"day {day}: mean {means[-1]['mean']}")
                            if days == 90 and day == 48:
                                step.output = {"window": "90d", "sample": means * 40}
                                step.metrics["loss"] = 0.03124
                                sys.stdin.readline()
                        step.output = {"window": f"{days}d", "means": means}
            with features.step("check drift", input={"columns": ["segment", "amount"]}):
                time.sleep(PACE)
                raise KeyError("segment")


if __name__ == "__main__":
    try:
        main()
    except KeyError:
        sys.exit(1)
