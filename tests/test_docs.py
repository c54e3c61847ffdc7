"""What is documented: every public name, and that the reference renders.

The examples themselves are run by `test_house.py`.
"""

import ast
import dataclasses
import doctest
import inspect
import re
import textwrap
import types

from pages import links
import pdoc
import pdoc.render
import pytest

import hk_bridge

MODULES = [
    hk_bridge,
    hk_bridge.migrate,
    hk_bridge.nn,
    hk_bridge.sharding,
    hk_bridge.testing,
]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}
# What `wrap` makes has linen's documentation.
WRAPPED = {
    name: thing
    for name, thing in PUBLIC.items()
    if hasattr(thing, "flax_class") and thing is not hk_bridge.nn.GroupNorm
}
OURS = {name: thing for name, thing in PUBLIC.items() if name not in WRAPPED}


def public_functions():
    """Functions, and the methods of classes that are written in this package."""
    for name, thing in OURS.items():
        if inspect.isfunction(thing):
            yield name, thing
        elif isinstance(thing, type):
            for attribute, value in vars(thing).items():
                generated = dataclasses.is_dataclass(thing) and attribute == "__init__"
                public = attribute in ("__init__", "__call__") or attribute[0] != "_"
                if isinstance(value, types.FunctionType) and public and not generated:
                    yield f"{name}.{attribute}", value


FUNCTIONS = dict(public_functions())


def section(function, title):
    """The text of a section of a docstring, or None."""
    found = re.search(
        rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(function) or "", re.MULTILINE
    )
    return found and found[1]


def entries(text):
    """The names that a section explains: `a`, and `b`, `c` of `b, c: ...`."""
    heads = re.findall(r"^  ([*\w]+(?:, [*\w]+)*):", text or "", re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def test_all_kinds_are_there():
    assert {"hk_bridge.wrap", "hk_bridge.FlaxModule.__call__"} < set(FUNCTIONS)
    assert {"hk_bridge.migrate.Twin.to_flax"} < set(FUNCTIONS)
    assert len(WRAPPED) == len(hk_bridge.nn.__all__) - 1


@pytest.mark.parametrize("name", OURS)
def test_an_example(name):
    finder = doctest.DocTestFinder(recurse=False)
    assert finder.find(PUBLIC[name], "it")[0].examples


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_results_and_errors(name):
    function = FUNCTIONS[name]
    signature = inspect.signature(function)
    parameters = [x for x in signature.parameters if x != "self"]
    assert entries(section(function, "Args")) == parameters
    if signature.return_annotation not in (None, signature.empty):
        assert section(function, "Returns")
    source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(source)):
        assert section(function, "Raises")


@pytest.mark.parametrize(
    "name", [name for name, thing in OURS.items() if isinstance(thing, type)]
)
def test_attributes(name):
    cls = PUBLIC[name]
    if dataclasses.is_dataclass(cls):
        fields = [x.name for x in dataclasses.fields(cls) if x.name[0] != "_"]
        assert entries(section(cls, "Attributes")) == fields
    properties = [x for x in vars(cls).values() if isinstance(x, property)]
    assert all(x.__doc__ or x.fget.__name__[0] == "_" for x in properties)


@pytest.mark.parametrize("name", WRAPPED)
def test_layers_have_linens_text(name):
    cls = WRAPPED[name]
    linen = f"{cls.flax_class.__module__}.{cls.flax_class.__qualname__}"
    for text in (cls.__doc__, cls.__init__.__doc__):
        assert f"`{linen}`" in text
    assert ">>>" not in cls.__doc__
    assert " object at 0x" not in cls.__doc__
    assert not re.search(r"^(Args|Attributes|Returns|Raises):\n\n", cls.__doc__, re.M)
    annotations = {
        x.annotation for x in inspect.signature(cls).parameters.values()
    }  # read where linen wrote them: here their names mean nothing
    assert not any(isinstance(annotation, str) for annotation in annotations)


def test_the_reference_renders_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder has the name of the package
    pdoc.render.configure(docformat="restructuredtext")  # where one says nothing else
    pdoc.pdoc("hk_bridge", output_directory=tmp_path)
    pages = {path.stem: path.read_text() for path in tmp_path.rglob("*.html")}
    for page in {*pages} - {"index"}:
        assert '<h6 id="arguments">Arguments:</h6>' in pages[page]
        assert not re.search(r"<p>(Args|Returns|Raises|Attributes):", pages[page])
    assert list(links.broken(tmp_path)) == []
    modules = {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(pages) == {"index", *modules}
    for name in PUBLIC:
        module, _, thing = name.rpartition(".")
        assert f'id="{thing}"' in pages[module.rpartition(".")[2]]
    assert not re.search(r"<p>[^<]*(&gt;&gt;&gt;|```)", "".join(pages.values()))
