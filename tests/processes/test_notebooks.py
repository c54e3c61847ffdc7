"""The notebooks: they run, and what is committed of them is clean."""

import pathlib
import re

from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
PAGE = (
    "https://colab.research.google.com/github/hk-bridge/hk_bridge/blob/main/notebooks"
)
PACKAGE = "hk_bridge[demo,checkpoint] @ "
ERRORS = "6_when_it_goes_wrong"
each_notebook = pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem
)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@pytest.fixture
def own_kernel(tmp_path, monkeypatch):
    """The kernel `python3` is this interpreter, and nothing of the user's is in it."""
    write_kernel_spec(tmp_path / "jupyter" / "kernels" / "python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.usefixtures("own_kernel")
@each_notebook
def test_runs(path, tmp_path):
    resources = {"metadata": {"path": str(tmp_path)}}
    again = NotebookClient(
        read(path), kernel_name="python3", timeout=600, resources=resources
    ).execute()
    if path.stem == ERRORS:
        assert list(map(ours, printed(again))) == list(map(ours, printed(read(path))))


def printed(notebook):
    """What each cell printed, which comes in one piece or in several."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    streams = [[o for o in some if o.output_type == "stream"] for some in outputs]
    return ["".join(o.text for o in some) for some in streams if some]


def ours(text):
    """A text without what Flax says, which has other words in other versions."""
    return re.sub(r"\w+: [^:]*?\(https://flax\.\S+\)\n", "", text)


def test_twelve_errors_are_told_and_mended():
    path = FOLDER / f"{ERRORS}.ipynb"
    cells = [c.source for c in code_cells(path)]
    mistakes = [source for source in cells if "with mistake():\n" in source]
    assert len(mistakes) == len(printed(read(path))) == 12
    titles = [c.source.split()[1] for c in read(path).cells if c.source[:3] == "## "]
    assert titles == [f"{i}." for i in range(1, 13)]
    for source in mistakes:  # what mends it comes after, and runs
        assert re.search(r"with mistake\(\):\n( +.*\n)+\n+\S", source)


def test_the_folder_holds_notebooks_alone():
    files = sorted(path.name for path in FOLDER.iterdir() if path.name[0] != ".")
    names = ("quickstart", "migrate", "hooks_and_state", "beyond_one_device")
    names += ("recipes", "when_it_goes_wrong", "match")
    assert files == [f"{i}_{name}.ipynb" for i, name in enumerate(names, 1)]


@each_notebook
def test_opens_in_colab_and_installs_what_it_needs(path):
    badge, *_ = read(path).cells[0].source.splitlines()
    assert re.fullmatch(r"\[!\[.+\]\(.+/colab-badge\.svg\)\]\((.+)\)", badge)[1] == (
        f"{PAGE}/{path.name}"
    )
    install = code_cells(path)[0].source
    assert 'find_spec("hk_bridge") is None' in install
    assert PACKAGE in install


@each_notebook
def test_was_run_from_top_to_bottom_without_a_word_on_stderr(path):
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    pictures = ["image/png" in output.get("data", {}) for output in outputs]
    assert any(pictures) or path.stem == ERRORS
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


@each_notebook
def test_is_small_and_tells_nothing_of_the_machine_that_ran_it(path):
    notebook, text = read(path), path.read_text()
    assert len(text) < 400_000
    assert notebook.metadata == {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    assert not any(cell.metadata for cell in notebook.cells)
    assert not re.search(r"/(tmp|home|root|Users|usr|opt|var)/|Warning", text)
