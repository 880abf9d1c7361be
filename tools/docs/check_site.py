"""Check the built site: links inside it, requests to other hosts, and a documented entry for every public name.

python tools/docs/check_site.py site
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import everthread

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""Elements that make a browser load something, and the attribute that names it."""
LOADED_LINKS = frozenset({"stylesheet", "preload", "preconnect", "dns-prefetch", "icon", "modulepreload", "prefetch"})
PUBLIC = (
    *(f"everthread.{name}" for name in everthread.__all__),
    "everthread.transfer.copy_threads",
    "everthread.transfer.export_threads",
    "everthread.transfer.import_threads",
    "everthread.operations.prune.prune",
    "everthread.operations.summarize.summarize",
    "everthread.wrappers.encryption.encrypted.Encrypted",
    "everthread.wrappers.redacted.Redacted",
    "everthread.wrappers.traced.Traced",
    "everthread.adapters.agent_framework.EverthreadHistoryProvider",
    "everthread.adapters.agent_framework_beta.RedisChatMessageStore",
)
"""Names whose documentation the site must hold."""


class Page(HTMLParser):
    """The ids of a page, its links, and what a browser loads with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "link" and LOADED_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        if tag in LOADED and values.get(LOADED[tag]):
            self.loads.append(values[LOADED[tag]])


def problems(site: Path) -> Iterator[str]:
    """Yield every problem of the site, as a line for people."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in sorted(pages.items()):
        here = path.relative_to(site)
        yield from (f"{here}: loads {url} from another host" for url in page.loads if _is_external(url))
        # Pages below an unknown address show 404.html, so its links begin at the root of the host.
        if here.name != "404.html":
            inside = [url for url in (*page.links, *page.loads) if not _is_external(url)]
            yield from (f"{here}: {problem}" for url in inside if (problem := _broken(url, path, pages, site)))
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        yield from (f"{style.relative_to(site)}: loads {url}" for url in re.findall(r"url\(['\"]?(https?:[^)]*)", text))
    documented = set().union(*(page.ids for page in pages.values()))
    yield from (f"{name} is documented nowhere" for name in PUBLIC if not documented & {name, _defined_as(name)})


def _defined_as(name: str) -> str:
    """Return the name under which the module that defines an object documents it."""
    value = getattr(everthread, name.partition(".")[2], None)
    return f"{value.__module__}.{value.__qualname__}" if value is not None else name


def _is_external(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme not in ("", "file")


def _broken(url: str, path: Path, pages: dict[Path, Page], site: Path) -> str:
    parts = urlsplit(url)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists() or not target.is_relative_to(site):
        return f"{url} does not exist"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return f"{url} has no such heading"
    return ""


if __name__ == "__main__":
    found = sorted(set(problems(Path(sys.argv[1]).resolve())))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"The site has {len(found)} problems." if found else "The site is sound.")
    sys.exit(bool(found))
