"""Makes the pages of the site."""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import html
import pathlib
import re

import jinja2
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
import pdoc
import pdoc.render
from pygments.formatters import HtmlFormatter

import hk_bridge
from pages import classes
from pages import versions

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
REPOSITORY = "https://github.com/hk-bridge/hk_bridge"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def site(folder: pathlib.Path, ran: pathlib.Path | None = None) -> None:
    """Makes the site in `folder`, with the versions that are noted in `ran`."""
    folder.mkdir(parents=True, exist_ok=True)
    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".highlight")
        for style in ("default", "github-dark")
    )
    style = (HERE / "style.css").read_text(encoding="utf-8")
    dark = f"@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    (folder / "style.css").write_text(style + light + "\n" + dark, encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"index": readme, "changelog": (ROOT / "CHANGELOG.md").read_text("utf-8")}
    for name, text in pages.items():
        _write(folder, name, text.partition("\n")[0].strip("# "), _html(text))
    for path in NOTEBOOKS:
        _write(folder, path.stem, _title(path.stem), _notebook(path))
    _write(folder, "classes", "Every class of Flax", _classes())
    _write(folder, "versions", "Versions", _versions(ran))
    footer = f"hk_bridge {hk_bridge.__version__}"
    pdoc.render.configure(template_directory=HERE / "pdoc", footer_text=footer)
    reference = folder.resolve() / "reference"
    with contextlib.chdir(folder):  # where no folder has the name of the package
        pdoc.pdoc("hk_bridge", output_directory=reference)


def _write(folder: pathlib.Path, name: str, title: str, body: str) -> None:
    template = jinja2.Template(
        (HERE / "page.html").read_text(encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = template.render(
        title=title if name == "index" else f"{title} - hk_bridge",
        here=name,
        body=_scrolling(body),
        notebooks=[(path.stem, _title(path.stem)) for path in NOTEBOOKS],
        repository=REPOSITORY,
        version=hk_bridge.__version__,
    )
    (folder / f"{name}.html").write_text(page, encoding="utf-8")


def _title(stem: str) -> str:
    """The title of a notebook in the menu, by its name."""
    return stem.partition("_")[2].replace("_", " ").capitalize()


def _html(markdown: str) -> str:
    return markdown2html(_linked(markdown))


def _linked(markdown: str) -> str:
    """Files that are named, as links to their pages or to the repository."""
    markdown = markdown.replace("`notebooks/`", "[notebooks](1_quickstart.html)")
    file = r"(?<!\[)`(\.(?:ci|github)/[\w./]+|tests/[\w./]+)`"
    return re.sub(file, rf"[`\1`]({REPOSITORY}/blob/main/\1)", markdown)


def _notebook(path: pathlib.Path) -> str:
    body, _ = HTMLExporter(template_name="basic").from_filename(str(path))
    return re.sub(r'href="(\d_\w+)\.ipynb"', r'href="\1.html"', body)


def _scrolling(body: str) -> str:
    """Has a wide table scroll by itself, and not the page."""
    body = re.sub(r"<table\b", '<div class="wide"><table', body)
    return body.replace("</table>", "</table></div>")


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *rest = [list(map(html.escape, row)) for row in rows]
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rest)
    lines += [f"<tr>{row}</tr>" for row in cells]
    return f"<table>{''.join(lines)}</table>"


_OF_CLASSES = """
This page is made of the catalogue of the tests: modules, each held to each law. A class
is counted in a case that runs it, by itself, as a part of a module, or as the base of
one. <em>Native</em> says what is shown to be as without the bridge: the programs of
<code>init</code> and of <code>apply</code>, and so every bit for all inputs, or
the values alone, of what JAX cannot trace.
"""
_OF_VERSIONS = """
With what the steps of <code>.ci/run</code> passed: each noted it when it ended, before
this site was made. Other versions may work, and were not tried here.
"""


def _classes() -> str:
    laws, parts = classes.LAWS, [f"<h1>Every class of Flax</h1><p>{_OF_CLASSES}</p>"]
    for title, rows in (("linen", classes.linen()), ("NNX", classes.of_nnx())):
        table = [("class", "in Haiku", "Haiku's own", "cases", "native", "laws")]
        for row in rows:
            held = f"{sum(map(bool, row.laws.values()))} of {len(row.laws)}"
            count = str(len(row.cases))
            table.append((row.name, row.here, row.twin, count, row.native, held))
        covered = sum(bool(row.cases) for row in rows)
        parts.append(f"<h2>{title}</h2><p>{covered} of {len(rows)} are in a case.</p>")
        parts.append(_table(table))
    parts.append("<h2>The laws</h2><dl>")
    for law, text in laws.items():
        first = html.escape(text.partition("\n\n")[0]) or law.replace("_", " ") + "."
        parts.append(f"<dt><code>{law}</code></dt><dd>{first}</dd>")
    return "".join([*parts, "</dl>"])


def _versions(ran: pathlib.Path | None) -> str:
    found = versions.noted(ran) if ran is not None else []
    parts = [f"<h1>Versions</h1><p>{_OF_VERSIONS}</p>"]
    if not found:
        parts.append("<p>No step noted anything for this site.</p>")
        return "".join(parts)
    rows = [("system", "Python", *versions.PACKAGES, "steps")]
    rows += [(*of, ", ".join(steps)) for of, steps in found]
    return "".join([*parts, _table(rows)])
