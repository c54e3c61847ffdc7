"""What is released: the wheel and the sdist, built from the checkout, and installed.

Nothing is downloaded: what builds, and what the wheel needs, is here already.
"""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import venv
import zipfile

import numpy as np
from packaging.metadata import Metadata
import pytest

import hk_bridge

ROOT = pathlib.Path(__file__).parents[2]
NAME = f"hk_bridge-{hk_bridge.__version__}"
INFO = f"{NAME}.dist-info"
TOP = {"CHANGELOG.md", "LICENSE", "README.md", "setup.cfg", "setup.py"}


def run(*command, cwd):
    """What a command prints, with no way to the checkout but by its arguments."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = list(map(str, command))
    options = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=cwd, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(root, *folders):
    """The files in some folders of `root`, as they are named below it."""
    paths = [path for folder in folders for path in (root / folder).rglob("*")]
    names = {path.relative_to(root).as_posix() for path in paths if path.is_file()}
    return {name for name in names if not name.endswith(".pyc")}


PACKAGE = files(ROOT, "hk_bridge")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout in which an older version was built before."""
    copy = tmp_path_factory.mktemp("source")
    for name in TOP | files(ROOT, "hk_bridge", "tests", "notebooks"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    old = ("stale.py", "migrate/stale.py", "gone/__init__.py")
    for stale in (*(f"build/lib/hk_bridge/{file}" for file in old), "tests/stale.pyc"):
        (copy / stale).parent.mkdir(parents=True, exist_ok=True)
        (copy / stale).touch()
    return copy


@pytest.fixture(scope="module")
def build(source):
    """What `python -m build` says."""
    options = ("--no-isolation", "--sdist", "--wheel", "--outdir", source / "dist")
    return run(sys.executable, "-m", "build", *options, source, cwd=source)


@pytest.fixture(scope="module")
def sdist(source, build):
    return source / "dist" / f"{NAME}.tar.gz"


@pytest.fixture(scope="module")
def wheel(source, build):
    return source / "dist" / f"{NAME}-py3-none-any.whl"


def test_nothing_in_the_build_is_deprecated(build):
    assert "deprecat" not in build.lower()


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    assert "hk_bridge/py.typed" in PACKAGE
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        licence = archive.read(f"{INFO}/licenses/LICENSE")
    parts = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    parts += ("top_level.txt",)
    assert names == PACKAGE | {f"{INFO}/{part}" for part in parts}
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_has_the_tests_too(sdist):
    with tarfile.open(sdist) as archive:
        members = [member.name for member in archive if member.isfile()]
    names = {name.removeprefix(f"{NAME}/") for name in members}
    names = {name for name in names if not name.startswith("hk_bridge.egg-info/")}
    assert names == PACKAGE | files(ROOT, "tests", "notebooks") | TOP | {"PKG-INFO"}


def test_the_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        # Refuses what does not follow the specification.
        metadata = Metadata.from_email(archive.read(f"{INFO}/METADATA"), validate=True)
    assert metadata.name == "hk_bridge"
    assert str(metadata.version) == hk_bridge.__version__
    assert str(metadata.requires_python) == ">=3.11"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.author == "The hk_bridge authors"
    assert set(metadata.project_urls) == {"Changelog", "Documentation", "Issues"}
    required = {str(x) for x in metadata.requires_dist if x.marker is None}
    assert required == {
        "jax>=0.8.1", "jaxlib>=0.8.1", "flax>=0.12.2", "dm-haiku>=0.0.16", "numpy",
    }  # fmt: skip
    of_use = {"checkpoint", "completion", "demo", "notebooks", "packages"}
    extras = {*of_use, "dev", "docs", "floor", "test", "test-core"}
    assert set(metadata.provides_extra) == extras


def test_the_description_is_the_readme(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = Metadata.from_email(archive.read(f"{INFO}/METADATA"))
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description.strip() == (ROOT / "README.md").read_text().strip()
    # A page that is not next to the files of the repository cannot follow these.
    links = re.findall(r"\]\(([^)]+)\)", metadata.description)
    assert [link for link in links if not re.match("https?://|#", link)] == []


# The wheel in an environment of its own.


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An interpreter for which the wheel is installed, and what it needs is there."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", *options, wheel, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    where = run(python, "-c", code, cwd=folder)
    ours = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    # The last on its path, so that it takes hk_bridge from its own packages.
    pathlib.Path(where.strip(), "ours.pth").write_text("\n".join(ours))
    return python


SCRIPT = """
import importlib.metadata, pathlib, sys
import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
import hk_bridge

home = pathlib.Path(sys.prefix).resolve()
assert home in pathlib.Path(hk_bridge.__file__).resolve().parents, hk_bridge.__file__
assert importlib.metadata.version("hk_bridge") == hk_bridge.__version__
x = jnp.ones([2, 4])
f = hk.transform(lambda x: hk_bridge.FlaxModule(nn.Dense(3))(hk_bridge.nn.Dense(5)(x)))
params = f.init(jax.random.key(0), x)
assert f.apply(params, None, x).shape == (2, 3)
hk_bridge.migrate.save("net.npz", hk_bridge.to_flax(params, {}, name="dense"))
"""


def test_the_wheel_works_alone(python, tmp_path):
    run(python, "-I", "-c", SCRIPT, cwd=tmp_path)
    assert set(np.load(tmp_path / "net.npz")) == {"params/bias", "params/kernel"}
    shown = run(python, "-I", "-m", "hk_bridge", "show", "net.npz", cwd=tmp_path)
    assert "params['net']['kernel']" in shown


def test_the_command_line_is_there(python, tmp_path):
    shown = run(python, "-I", "-m", "hk_bridge", "--help", cwd=tmp_path)
    assert "usage: hk_bridge" in shown
    command = python.with_name("hk_bridge")  # with `.exe`, Windows finds it too
    assert run(command, "--help", cwd=tmp_path) == shown
    version = f"hk_bridge {hk_bridge.__version__}\n"
    assert run(command, "--version", cwd=tmp_path) == version
