"""The house: who imports whom, what is public, doctests, and the README."""

import ast
import doctest
import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import subprocess

import pytest
import yaml

import hk_bridge

PACKAGE = pathlib.Path(hk_bridge.__file__).parent
ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
CI = ROOT / ".ci" / "run"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FLOORS = {
    "_names": 0,
    "_errors": 0,
    "_abstract": 0,
    "_plain": 0,
    "_text": 0,
    "_caller": 0,
    "_numbering": 1,
    "_layout": 1,
    "_program": 2,
    "_flax": 2,
    "_haiku": 2,
    "_share": 3,
    "_sharding": 3,
    "_sides": 3,
    "_signature": 3,
    "_document": 3,
    "_module": 4,
    "_cell": 5,
    "_wrap": 6,
    "nn": 7,
    "checkpoint": 7,
    "native": 7,
    "_diff": 7,
    "testing": 8,
    "__init__": 9,
    "_commands": 10,
    "_demo": 10,
    "__main__": 11,
}
DOORS = {"flax": "_flax", "haiku": "_haiku"}
USER_CODE = {"_demo"}  # written as a user writes
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(name):
    """`(module, inside a function)` of every import of a file."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inside = {id(n) for function in functions for n in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in inside


def test_every_file_has_a_floor():
    assert set(MODULES) == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    for module, _ in imports(name):
        top, _, rest = module.partition(".")
        if top == "hk_bridge" and name not in USER_CODE:
            assert FLOORS[rest.partition(".")[0]] < FLOORS[name], module


@pytest.mark.parametrize("name", MODULES)
def test_each_framework_has_one_door(name):
    for module, _ in imports(name):
        top = module.partition(".")[0]
        if top in DOORS and name not in USER_CODE:
            assert name == DOORS[top], module


@pytest.mark.parametrize("name", MODULES)
def test_only_optional_imports_hide_in_functions(name):
    extras = {"optax", "sklearn", "tqdm", "matplotlib"}
    for module, inside in imports(name):
        top = module.partition(".")[0]
        assert inside == (top in extras), module


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
    for module in pkgutil.iter_modules(hk_bridge.__path__):
        importlib.import_module(f"hk_bridge.{module.name}")


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
def test_workflows_run_steps_of_ci():
    steps = set(re.findall(r"^(\w+)\(\) \{", CI.read_text(), re.MULTILINE))
    ran = set()
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            matrix = job.get("strategy", {}).get("matrix", {}).get("include", [])
            ran |= {row["step"] for row in matrix}
            lines = [step["run"] for step in job["steps"] if "run" in step]
            ran |= {line.split()[1] for line in lines if line.startswith(".ci/run")}
    ran.discard("${{")  # a step of the matrix
    assert ran <= steps
    # On a machine with one Python `newest` looks for another; there each has its job.
    helpers = {"dev", "floor_environment", "newer_python", "pyenv_pythons"}
    assert steps - ran == {"floor", "newest", *helpers}
