"""Optional dependencies: imported on demand, and named with their install command where missing."""

from __future__ import annotations

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
