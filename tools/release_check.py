"""Build the distributions, check them, and run the quickstart with the wheel in an empty environment.

python tools/release_check.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
NEEDED = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "src/everthread/py.typed", "tests/README.md"}
"""Files that the source distribution must hold."""


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(DIST), str(ROOT))
    (source,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", str(source), str(wheel))
    check_contents(source, wheel)
    with tempfile.TemporaryDirectory() as folder:
        try_quickstart(wheel, Path(folder))
    print(f"{source.name} and {wheel.name} are ready.")


def check_contents(source: Path, wheel: Path) -> None:
    """Compare the files of both distributions with the source tree."""
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if missing := NEEDED - names:
        raise SystemExit(f"{source.name} lacks {', '.join(sorted(missing))}")
    if strange := [name for name in names if re.match(r"\.venv|site/|dist/|.*\.db$", name)]:
        raise SystemExit(f"{source.name} holds {strange[0]} and {len(strange) - 1} more that do not belong there")
    files = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    if missing := {file.removeprefix("src/") for file in files.split()} - packed:
        raise SystemExit(f"{wheel.name} lacks {', '.join(sorted(missing))}")


def try_quickstart(wheel: Path, folder: Path) -> None:
    """Install the wheel alone, and run the first program and the first commands of the quickstart."""
    venv.create(folder / "venv", with_pip=True)
    python, command = folder / "venv" / "bin" / "python", folder / "venv" / "bin" / "everthread"
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[cli]")
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (folder / "first.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    run(str(python), "first.py", cwd=folder)
    store = "sqlite:///threads.db"
    for arguments in (["threads"], ["show", "trip-to-rome"], ["search", "trains"], ["doctor"]):
        run(str(command), *arguments, "--store", store, cwd=folder)


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a command, and exit if it fails."""
    print("+", " ".join(command), flush=True)
    if status := subprocess.run(command, cwd=cwd, check=False).returncode:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
