"""``python -m everthread.testing URL``: print which guarantees an engine keeps."""

from __future__ import annotations

import argparse
import sys

from everthread.testing.report import conformance_report


def main() -> int:
    """Run the kit; return 0 if the engine keeps the contract, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m everthread.testing", description="Run the conformance kit on an engine and print a report."
    )
    parser.add_argument("url", help="URL of the store; {folder} stands for a new, empty folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON (default: a table)")
    options = parser.parse_args()
    url: str = options.url
    report = conformance_report(lambda folder: url.replace("{folder}", str(folder)))
    sys.stdout.write((report.to_json().decode() if options.json else report.to_text()) + "\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
