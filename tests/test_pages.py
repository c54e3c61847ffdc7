"""The pages of the site: what they say follows from the tests, and no link is dead."""

import json

from pages import classes
from pages import links
from pages import make
from pages import versions
import pytest
import test_laws


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, with a catalogue of a few cases, and two runs that are noted."""
    folder, ran = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("ran")
    for step, python in (
        ("tests", "3.11.7"),
        ("newest", "3.13.1"),
        ("values", "3.11.7"),
    ):
        noted = {"step": step, "system": "Linux", "python": python, "jax": "0.10.2"}
        noted |= {"jaxlib": "0.10.2", "flax": "0.12.8", "dm-haiku": "0.0.17"}
        (ran / f"{step}.json").write_text(json.dumps(noted))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LINEN", "NNX"):
            cases = [c for c in getattr(test_laws, name) if c.name in FEW]
            patch.setattr(test_laws, name, cases)
        make.site(folder, ran)
    return folder


FEW = {"batch_norm", "nnx_batch_norm", "spectral_norm"}


def test_no_link_is_dead(site):
    assert list(links.broken(site)) == []


def test_dead_links_are_found(tmp_path):
    (tmp_path / "other.html").write_text('<p id="here"></p>')
    page = '<h1 id="top"></h1><a href="{}">x</a>'
    for link in ("other.html", "other.html#here", "#top", "https://a.b/c#d"):
        (tmp_path / "page.html").write_text(page.format(link))
        assert list(links.broken(tmp_path)) == []
    for link in ("no.html", "other.html#there", "#bottom"):
        (tmp_path / "page.html").write_text(page.format(link))
        assert list(links.broken(tmp_path)) == [f"page.html: {link}"]


def test_every_page_fits_a_phone_and_has_the_menu(site):
    pages = sorted(site.glob("*.html"))
    assert len(pages) == len(make.NOTEBOOKS) + 4
    for page in pages:
        text = page.read_text()
        assert '<meta name="viewport" content="width=device-width' in text
        assert text.count("<h1") >= 1
        assert text.count("<table") == text.count('<div class="wide"><table')
        for other in pages:
            assert f'href="{other.name}"' in text
    style = (site / "style.css").read_text()
    assert ".wide { overflow-x: auto" in style
    assert "max-width: 100%" in style
    assert "overflow-x: auto" in style.partition("\npre {")[2].partition("}")[0]


def test_the_front_page_is_readme(site):
    text = (site / "index.html").read_text()
    assert "not one number" in text
    assert 'href="1_quickstart.html">notebooks</a>' in text
    assert f'href="{make.REPOSITORY}/blob/main/.github/CONTRIBUTING.md"' in text


def test_notebooks_are_as_they_ran(site):
    text = (site / "6_when_it_goes_wrong.html").read_text()
    assert "ModuleTypeError: FlaxModule needs a linen or NNX module instance" in text
    assert "data:image/png;base64," in (site / "1_quickstart.html").read_text()
    assert 'href="6_when_it_goes_wrong.html"' in (site / "5_recipes.html").read_text()


def test_the_table_of_classes_is_that_of_the_catalogue(monkeypatch):
    cases = [case for case in test_laws.LINEN if case.name in FEW]
    monkeypatch.setattr(test_laws, "LINEN", cases)
    found = {row.name: row for row in classes.linen()}
    norm, local = found["BatchNorm"], found["ConvLocal"]
    assert norm.here == "hk_bridge.nn.BatchNorm"
    assert norm.twin == "hk.BatchNorm"
    assert norm.cases == ["batch_norm"]
    assert norm.native == "program"
    assert set(norm.laws) == {law.__name__ for law in test_laws.laws.LAWS}
    assert (local.cases, local.native, set(local.laws.values())) == ([], "", {0})
    assert found["GroupNorm"].twin == "hk.GroupNorm, up to rounding"
    monkeypatch.setattr(test_laws, "PARAMETERS", [])  # nothing is held to a law
    assert {row.native for row in classes.linen()} == {""}


def test_versions_are_those_that_were_noted(site, tmp_path):
    text = (site / "versions.html").read_text()
    assert "<td>tests, values</td>" in text
    assert text.index("3.13.1") < text.index("3.11.7")
    assert "No step noted anything" in make._versions(None)
    versions.note("tests", tmp_path)
    ((row, steps),) = versions.noted(tmp_path)
    assert steps == ["tests"]
    assert len(row) == 2 + len(versions.PACKAGES)
