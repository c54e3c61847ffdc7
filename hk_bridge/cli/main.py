"""The command line: `hk_bridge COMMAND`, or `python -m hk_bridge COMMAND`.

What it understands is said here, without JAX, so that `--help` is there at once. The
file of a command, which does the work, is imported when the command is chosen."""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import importlib
import io
import os
from pathlib import Path
import shutil
import sys
from typing import Any

from hk_bridge import __version__
from hk_bridge import _errors
from hk_bridge import _tables
from hk_bridge.cli.options import EXTRAS
from hk_bridge.cli.options import CannotStart
from hk_bridge.cli.options import parse_input
from hk_bridge.cli.options import parse_setting

_EPILOG = """examples:
  hk_bridge demo --epochs 15 --plot curves.png
  hk_bridge show weights.msgpack --name resnet
  hk_bridge convert weights.msgpack haiku.safetensors --name resnet
  hk_bridge match nets:Flax weights.msgpack nets:forward --input 'f32[2,9]'
  hk_bridge verify flax.linen:Dense --config features=3 --input 'f32[2,4]'
"""


def _whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        message = f"{text!r} is no whole number from {least} to {most}"
        raise argparse.ArgumentTypeError(message)

    return parse


def _png(text: str) -> Path:
    """The type of an option: a PNG file in a folder that exists."""
    path = Path(text)
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        message = f"{text!r} is no name of a .png file in a folder that exists"
        raise argparse.ArgumentTypeError(message)
    return path


def _new_file(text: str) -> Path:
    """The type of an option: a file in a folder that exists."""
    path = Path(text)
    if not path.parent.is_dir():
        message = f"{text!r} is no name of a file in a folder that exists"
        raise argparse.ArgumentTypeError(message)
    return path


def _haiku_name(text: str) -> str:
    """The type of an option: the full name of a module in Haiku."""
    try:
        _errors.check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _demo(add: Any) -> None:
    add("--epochs", type=_whole(1, 10_000), default=15, help="default: %(default)s")
    add("--seed", type=_whole(0, 2**32 - 1), default=0, help="default: %(default)s")
    add("--plot", type=_png, metavar="FILE.png", help="save loss and accuracy curves")


def _json(add: Any) -> None:
    add("--json", action="store_true", help="for a program to read")


def _source(add: Any) -> None:
    text = "what to take; a tree without it is the whole of it (params, say)"
    pick = {"metavar": "NAME", "action": "append", "default": []}
    add("--collection", help=text, **pick)
    add("--step", type=_whole(0, 2**63), help="of a folder of steps; the newest")


def _show(add: Any) -> None:
    _json(add)
    _checkpoint(add("ckpt", metavar="CKPT", help="a file or a directory"))
    add("--name", type=_haiku_name, default="net", help="in Haiku (%(default)s)")
    _source(add)
    add("--haiku", action="store_true", help="it is one of a Haiku code base")


def _convert(add: Any) -> None:
    _json(add)
    _checkpoint(add("src", metavar="SRC", help="a file or a directory"))
    text = "its suffix tells the format; without one, Orbax"
    _checkpoint(add("dst", metavar="DST", help=text))
    _source(add)
    add("--name", type=_haiku_name, help="of the module in Haiku")
    add("--to", choices=("haiku", "flax"), default="haiku", help="default: %(default)s")
    text = "SRC is one of a Haiku code base, and stays so: the format changes alone"
    add("--haiku", action="store_true", help=text)
    names = ("hk_bridge", "plain", "dotted", "alphafold", "weathernext")
    add("--names", choices=names, default=names[0], help="how Haiku's are spelled")


def _match(add: Any) -> None:
    _json(add)
    add("module", metavar="pkg.mod:Class", help="of Flax, or what builds one")
    _checkpoint(add("variables", metavar="CKPT", help="its weights"))
    add("network", metavar="pkg.mod:function", help="of Haiku, transformed or not")
    array = {"metavar": "ARRAY", "type": parse_input, "action": "append"}
    add("--input", default=[], help="an input, like 'f32[2,224,224,3]'", **array)
    pair = {"metavar": "K=V", "type": parse_setting, "action": "append", "default": []}
    add("--config", help="an argument of the class", **pair)
    add("--kwarg", help="a keyword input of both calls", **pair)
    add("--flax-kwarg", help="of Flax's alone, train=False", **pair)
    add("--haiku-kwarg", help="of Haiku's alone, is_training=False", **pair)
    add("--table", metavar="FILE", type=_new_file, help="save the table of leaves")
    _source(add)


def _verify(add: Any) -> None:
    _json(add)
    add("module", metavar="pkg.mod:Class", help="or a function that builds one")
    pair = {"metavar": "K=V", "type": parse_setting, "action": "append"}
    add("--config", default=[], help="an argument of the class", **pair)
    add("--kwarg", default=[], help="a keyword input of the call", **pair)
    array = {"metavar": "ARRAY", "type": parse_input, "action": "append"}
    add("--input", default=[], help="an input, like 'f32[2,224,224,3]'", **array)
    _checkpoint(add("--variables", metavar="CKPT", help="initial values"))
    _source(add)
    add("--steps", type=_whole(1, 10_000), help="default: 3")
    add("--name", type=_haiku_name, help="in Haiku")


def _checkpoint(argument: Any) -> None:
    """Has a shell complete the argument by files and folders."""
    argument.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


# For each command: what it does, what it understands, the extra that it needs. Its file
# `cli/NAME.py` has `run(args)`, which returns the exit code.
_COMMANDS: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "demo": ("train a Haiku network of Flax blocks on digits", _demo, "demo"),
    "show": ("show a checkpoint and where it goes in Haiku", _show, "checkpoint"),
    "convert": (
        "convert a checkpoint from Flax's layout to Haiku's, or back",
        _convert,
        "checkpoint",
    ),
    "match": (
        "find which leaf of a native Haiku network is which of a Flax module",
        _match,
        "checkpoint",
    ),
    "verify": (
        "check that a Flax module is the same in Haiku as in Flax",
        _verify,
        "checkpoint",
    ),
}
_SHELLS = ("bash", "zsh", "tcsh")


class _Completion(argparse.Action):
    """Prints what has a shell complete the command line."""

    def __call__(
        self, parser: Any, namespace: Any, shell: Any, option: Any = None
    ) -> None:
        try:
            shtab = importlib.import_module("shtab")
        except ModuleNotFoundError as error:
            parser.exit(_told("completion", error, "completion"))
        print(shtab.complete(parser, shell))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """What the command line understands."""
    made = argparse.ArgumentParser(
        prog="hk_bridge",
        description="Any Flax module as a Haiku module.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    text = "print what has the shell complete this command line"
    made.add_argument("--completion", choices=_SHELLS, action=_Completion, help=text)
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (text, add_arguments, extra) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(extra=extra, wrong=command.error)
        add_arguments(command.add_argument)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command line `argv`, by default that of the process.

    Returns:
      0 if the command did its work, 1 if what it checks does not hold, 2 if it could
      not start: an extra is not installed, a file cannot be read; 141, as shells have
      it, if who read its output went away.

    Raises:
      SystemExit: as argparse does, after `--help` (0) or wrong arguments (2).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # which may lack letters of a name
            stream.reconfigure(errors="backslashreplace")
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        args = parser().parse_args(argv)
        command = importlib.import_module(f"hk_bridge.cli.{args.command}")
        with _tables.fitting(room):
            code = int(command.run(args))
        print(end="", flush=True)
        return code
    except OSError as error:
        try:
            print(end="", flush=True)
        except OSError:  # so that what is left is flushed to nowhere at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `show ... | head` has enough
            return 141
        print(f"hk_bridge: {error}", file=sys.stderr)  # such as a full disk
        return 2
    except CannotStart as error:
        line = _tables.printable(" ".join(str(error).split()))
        print(f"{args.command}: {line}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        return _told(args.command, error, args.extra)


def _told(what: str, error: ModuleNotFoundError, extra: str) -> int:
    """Tells in one line which extra is missing, and gives the exit code.

    Raises:
      ModuleNotFoundError: it is another package that is missing.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS[extra]:
        raise error
    line = f"{what} needs {package}: pip install 'hk_bridge[{extra}]'"
    print(line, file=sys.stderr)
    return 2
