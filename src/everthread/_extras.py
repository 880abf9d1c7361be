"""Optional dependencies: imported on demand, and named with their install command where missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from everthread.errors import ConfigurationError


def import_extra(module: str, extra: str) -> Any:
    """Imports an optional dependency.

    Raises:
        ConfigurationError: It is not installed; the message is the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_extra(extra, error) from error


def missing_extra(extra: str, error: ImportError) -> ConfigurationError:
    """The error that says how to install ``extra``."""
    return ConfigurationError(f"This needs {error.name or extra}: pip install 'everthread[{extra}]'")


def lazy_names(
    package: str, modules: Mapping[str, str], extra: str, *, imported: str | Collection[str] = ()
) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package that imports its names at their first use.

    So importing the package needs no framework, and works with every release of it.

    Args:
        package: The package's ``__name__``.
        modules: For each public name the module of the package that defines it.
        extra: The extra that installs the framework.
        imported: The framework's top-level packages, if there are others than that of the extra's name.

    Raises:
        ConfigurationError: At first use, if the framework is not installed.
    """
    packages = {imported} if isinstance(imported, str) else set(imported) or {extra.replace("-", "_")}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f"{package}.{modules[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in packages:
                raise missing_extra(extra, error) from error
            raise
        return getattr(module, name)

    return get
