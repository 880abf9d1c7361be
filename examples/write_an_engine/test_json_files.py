"""The engine passes the conformance kit. Run: ``python -m pytest examples/write_an_engine``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

from everthread import Store
from everthread.testing import ProcessHarness, conformance_suite

from .json_files import JsonFiles


class JsonFilesHarness(ProcessHarness):
    """Opens stores on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, **options: Any) -> Store:
        return JsonFiles(self.folder / "threads", **options)

    def opener(self) -> Callable[[], Store]:
        return partial(JsonFiles, self.folder / "threads")

    def another(self) -> Self:
        return type(self)(Path(mkdtemp(dir=self.folder)))


TestJsonFiles = conformance_suite(JsonFilesHarness)
