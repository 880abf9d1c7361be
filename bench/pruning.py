"""Measure `everthread prune` over 1,000 and over 100,000 threads: python -m bench.pruning

The whole command: threads a second, and the most memory that its process had. First a run in which there is
nothing to do, then one that shortens every thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench.listing import FEW, MANY, fill_both, places

RUNS = {"nothing to do": ("--max-messages", "5"), "every thread is shortened": ("--max-messages", "0")}

MEASURE = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process in between: the kernel counts the peak memory of the parent as that of the child."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pruning", description=__doc__)
    parser.add_argument("--many", type=int, default=MANY, help="how many threads the larger store has")
    parser.add_argument("only", nargs="*", metavar="engine", help="measure only these")
    options = parser.parse_args()
    with ExitStack() as stack:
        for name, pair in stack.enter_context(places()).items():
            if options.only and name not in options.only:
                continue
            fill_both(pair, options.many)
            for what, limits in RUNS.items():
                for url, count in zip(pair, (FEW, options.many), strict=True):
                    seconds, peak = prune(url, *limits)
                    rate = f"{count / seconds:9,.0f} threads/s   {seconds:6.1f} s"
                    print(f"{name:8} {what:26} {count:9,} threads: {rate}   {peak:4.0f} MB", flush=True)


def prune(url: str, *limits: str) -> tuple[float, float]:
    """Return the seconds, and the peak memory of the process in MB."""
    program = str(Path(sys.executable).with_name("everthread"))
    began = time.perf_counter()
    command = [program, "prune", *limits, "--yes", "--store", url]
    run = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(run.stdout.split()[-1]) / 1000


if __name__ == "__main__":
    main()
