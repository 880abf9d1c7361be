"""Print the medians of each group, and the ratio of each contender to the bare driver of the same run."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys

from bench.workload import FULL, QUICK, Group, Result, Scale, measure

MODULES = ("sqlite", "redis", "objects", "postgres", "agent_framework")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="engine", help=f"measure only these: {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows that it runs, not how fast it is")
    options = parser.parse_args()
    if unknown := set(options.only) - set(MODULES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    for name in options.only or MODULES:
        run(name, QUICK if options.quick else FULL)


def run(module: str, scale: Scale) -> None:
    with importlib.import_module(f"bench.{module}").groups() as groups:
        for group in groups:
            results = asyncio.run(measure(group, scale))
            show(group, results)


def show(group: Group, results: dict[str, Result]) -> None:
    floor = next(iter(results.values()))
    columns = list(floor.times)
    rows = [[name, *(_cell(result, floor, column) for column in columns)] for name, result in results.items()]
    header = [group.name, *(column if "turns/s" in column else f"{column}, µs" for column in columns)]
    if sys.stdout.isatty():
        _show_rich(header, rows)
    else:
        _show_plain(header, rows)


def _cell(result: Result, floor: Result, column: str) -> str:
    value, bare = result.median(column), floor.median(column)
    return f"{value:,.0f} ({value / bare:.2f} ×)"


def _show_plain(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(flush=True)


def _show_rich(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
