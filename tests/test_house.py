"""The house: who imports whom, what is public, doctests, and the README."""

import ast
import doctest
import graphlib
import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import subprocess

import flax.core
from flax.core import scope as flax_scope
import flax.linen as nn
from flax.linen import module as linen_module
import haiku as hk
from haiku._src import base as hk_base
from haiku._src import data_structures as hk_structures
import pytest
import yaml

import hk_bridge

PACKAGE = pathlib.Path(hk_bridge.__file__).parent
ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
CI = ROOT / ".ci" / "run"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOUR = ROOT / ".github" / "CONTRIBUTING.md"
LONGEST = 300
# Files that know a class of a file above them by its name alone, for type checkers: a
# contract names who uses it, a call the module that is called.
TYPES_ALONE = {"_flax.host", "_flax.lifted", "_core.call", "_core.side"}
# Each has a canary in `test_doors.py`.
FRAMES = {"_flax.pack", "_haiku.stateless", "_core.caller"}
DOORS = {"flax": "_flax", "haiku": "_haiku"}
USER_CODE = {"cli.demo"}  # written as a user writes
EXTRAS = {"optax", "sklearn", "tqdm", "matplotlib"}
# What is imported by a name that is known at run time alone: the public names, NNX,
# private symbols, extras, and the modules of users.
BY_NAME = {"__init__", "_flax.kinds", "_private"}
BY_NAME |= {"migrate._extras", "cli.demo", "cli.main", "cli.verify"}


def modules():
    """The file of each module of the package by its name: `_layout.tree`, `testing`.

    A folder has the name of its `__init__`, which itself is `__init__` on top."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        files[name.removesuffix(".__init__")] = path
    return files


MODULES = modules()


def floors():
    """The floor of each file or folder, by the list in CONTRIBUTING."""
    lines = re.findall(r"^- ((?:`\w+`(?:, )?)+): ", TOUR.read_text(), re.MULTILINE)
    rows = [re.findall(r"\w+", line) for line in lines]
    names = [name for row in rows for name in row]
    assert len(names) == len(set(names)), "a name stands there twice"
    return {name: floor for floor, row in enumerate(rows) for name in row}


needs_tour = pytest.mark.skipif(
    not TOUR.exists(), reason="an sdist has no CONTRIBUTING"
)


def tour():
    """The files and folders that have a line below their folder's: `_layout.tree`."""
    rows = re.findall(r"^  - ((?:`[\w/]+`(?:, )?)+): ", TOUR.read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"[\w/]+", row)]
    return [name.replace("/", ".") for name in names]


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


class WithoutTypes(ast.NodeTransformer):
    """Takes out what only type checkers read."""

    def visit_If(self, node):
        return None if is_for_types(node) else self.generic_visit(node)


def imports(name):
    """`(module, inside a function)` of every import of a file."""
    tree = ast.parse(MODULES[name].read_text())
    if name in TYPES_ALONE:
        tree = WithoutTypes().visit(tree)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inside = {id(n) for function in functions for n in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in inside


def own_imports(name):
    """The modules of the package that a file imports."""
    for module, _ in imports(name):
        top, _, rest = module.partition(".")
        if top == "hk_bridge" and name not in USER_CODE:
            yield rest if rest in MODULES else rest.rpartition(".")[0] or "__init__"


def entry(name):
    """The file or folder on top that a module is in."""
    return name.partition(".")[0]


@needs_tour
def test_every_file_has_a_floor():
    assert set(floors()) == set(map(entry, MODULES))


@needs_tour
def test_every_file_of_a_folder_has_its_line():
    lines = tour()
    assert len(lines) == len(set(lines))
    assert set(lines) <= MODULES.keys()
    inner = [name for name in MODULES if "." in name]
    folders = {name.rpartition(".")[0] for name in MODULES}
    for name in inner:
        if name in folders and not any(is_in(name, line) for line in lines):
            continue  # a folder whose files have lines of their own
        assert sum(is_in(name, line) for line in lines) == 1, name


@pytest.mark.parametrize("name", sorted(TYPES_ALONE))
def test_types_alone_are_imported_up(name):
    nodes = ast.walk(ast.parse(MODULES[name].read_text()))
    inside = [n for node in nodes if is_for_types(node) for n in node.body]
    assert inside
    for node in inside:
        assert isinstance(node, ast.ImportFrom)
        folder = node.module.removeprefix("hk_bridge.")
        assert entry(folder) == entry(name), "of its own folder"


@needs_tour
@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    floor = floors()
    for module in own_imports(name):
        if entry(module) != entry(name):
            assert floor[entry(module)] < floor[entry(name)], module


def test_there_is_no_circle():
    """Nor by a folder, which is imported before what is in it."""
    graph = {name: set() for name in MODULES}
    for name in MODULES:
        for module in own_imports(name):
            graph[name].add(module)
            parts = module.split(".")
            above = {".".join(parts[:end]) for end in range(1, len(parts))}
            graph[name] |= {folder for folder in above if not is_in(name, folder)}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises on a circle


def is_in(name, folder):
    return name == folder or name.startswith(f"{folder}.")


@pytest.mark.parametrize("name", MODULES)
def test_each_framework_has_one_door(name):
    for module, _ in imports(name):
        top = entry(module)
        if top in DOORS and name not in USER_CODE:
            assert entry(name) == DOORS[top], module


@pytest.mark.parametrize("name", MODULES)
def test_only_optional_imports_hide_in_functions(name):
    for module, inside in imports(name):
        assert inside == (entry(module) in EXTRAS), module
    assert ("import_module" in MODULES[name].read_text()) == (name in BY_NAME)


def test_files_are_short():
    lines = {name: path.read_text().splitlines() for name, path in MODULES.items()}
    long = {name for name in MODULES if len(lines[name]) > LONGEST}
    assert long == {"_errors"}


def test_frames_are_looked_at_in_three_files():
    words = re.compile(r"_getframe|currentframe|inspect\.stack|f_back")
    found = {name for name, path in MODULES.items() if words.search(path.read_text())}
    assert found == FRAMES


def test_no_method_of_another_librarys_instance_is_shadowed():
    """No attribute is set that one of these classes has as a method."""
    stack = type(linen_module._global_interceptor_stack)
    classes = [flax.core.Scope, nn.Module, hk.Module, flax_scope.Variable, stack]
    classes += [hk_structures.Stack, hk_base.ModuleState]
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) != "setattr", name
            is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            # A stream of NNX has a `count`, as each list has.
            if is_set and node.attr not in ("__class__", "count"):
                methods = [callable(getattr(cls, node.attr, None)) for cls in classes]
                assert not any(methods), (name, ast.unparse(node))


def test_the_public_surface():
    assert sorted(hk_bridge.__all__) == list(hk_bridge.__all__)
    for name in hk_bridge.__all__:
        assert getattr(hk_bridge, name).__doc__
    assert importlib.metadata.version("hk_bridge") == hk_bridge.__version__


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name == "__main__":
        return
    module = importlib.import_module(
        "hk_bridge" if name == "__init__" else f"hk_bridge.{name}"
    )
    results = doctest.testmod(module)
    assert results.failed == 0


def test_all_modules_import():
    for module in pkgutil.walk_packages(hk_bridge.__path__, "hk_bridge."):
        importlib.import_module(module.name)


def test_readme_examples():
    text = re.sub("(?m)^```.*$", "", README.read_text())  # else taken for output
    examples = doctest.DocTestParser().get_doctest(text, {}, "README", str(README), 0)
    results = doctest.DocTestRunner().run(examples)
    assert results.attempted > 0
    assert results.failed == 0


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_readme_python_blocks_are_doctests():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    assert all(block.startswith(">>> ") for block in blocks)


@pytest.mark.skipif(not CI.exists(), reason="an sdist has no CI")
def test_ci_runs_readmes_command():
    command = re.search(
        r"^Run the tests:\n\n```bash\n(.*)\n```$", README.read_text(), re.M
    )
    script = CI.read_text()
    extract = re.search(r"eval \"\$\((.*)\)\"", script)[1]
    done = subprocess.run(
        ["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == command[1]


@pytest.mark.skipif(not WORKFLOWS, reason="an sdist has no CI")
def test_actions_are_pinned():
    """A tag can be moved; a commit cannot."""
    for path in WORKFLOWS:
        used = re.findall(r"^ +(?:- )?uses: (\S+)(.*)$", path.read_text(), re.MULTILINE)
        for action, version in used:
            own = action.startswith("./")
            assert own or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)
            assert own or re.fullmatch(r" # v\d+\.\d+\.\d+", version)


@pytest.mark.skipif(not WORKFLOWS, reason="an sdist has no CI")
def test_workflows_run_steps_of_ci():
    steps = set(re.findall(r"^(\w+)\(\) \{", CI.read_text(), re.MULTILINE))
    ran = set()
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            matrix = job.get("strategy", {}).get("matrix", {}).get("include", [])
            ran |= {row["step"] for row in matrix}
            lines = [step["run"] for step in job.get("steps", []) if "run" in step]
            ran |= {line.split()[1] for line in lines if line.startswith(".ci/run")}
    ran.discard("${{")  # a step of the matrix
    assert ran <= steps
    # On a machine with one Python `newest` looks for another; there each has its job.
    helpers = {"dev", "floor_environment", "newer_python", "pyenv_pythons"}
    assert steps - ran == {"floor", "newest", *helpers}
