"""Which links of a folder of HTML pages lead nowhere."""

from collections.abc import Iterator
from html.parser import HTMLParser
import pathlib
from urllib.parse import unquote
from urllib.parse import urlsplit


class Page(HTMLParser):
    """The places in a page that can be linked, and what it links."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken(folder: pathlib.Path) -> Iterator[str]:
    """Each link within `folder` that leads to no file, or to no place in it."""
    paths = [path.resolve() for path in folder.rglob("*.html")]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve()
            target = target if parts.path else path
            there = pages[target].anchors if target in pages else set()
            place = unquote(parts.fragment)
            if not target.is_file() or (place and place not in there):
                yield f"{path.relative_to(folder.resolve())}: {link}"
