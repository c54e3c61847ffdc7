"""The command line: `python -m hk_bridge COMMAND`."""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import os
from pathlib import Path
import sys
from typing import Any
from typing import TypeAlias

from hk_bridge import _errors
from hk_bridge import _tables
from hk_bridge.cli import demo
from hk_bridge.cli.common import PACKAGES
from hk_bridge.cli.common import CannotStart
from hk_bridge.cli.convert import convert
from hk_bridge.cli.match import match
from hk_bridge.cli.match import table_file
from hk_bridge.cli.options import parse_input
from hk_bridge.cli.options import parse_setting
from hk_bridge.cli.show import show
from hk_bridge.cli.verify import verify

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EPILOG = """examples:
  python -m hk_bridge demo --epochs 15 --plot curves.png
  python -m hk_bridge show weights.msgpack --name resnet
  python -m hk_bridge convert weights.msgpack haiku.safetensors --name resnet
  python -m hk_bridge match nets:Flax weights.msgpack nets:forward --input 'f32[2,9]'
  python -m hk_bridge verify flax.linen:Dense --config features=3 --input 'f32[2,4]'
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


def _haiku_name(text: str) -> str:
    """The type of an option: the full name of a module in Haiku."""
    try:
        _errors.check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _add_demo(commands: Commands) -> None:
    text = "train a Haiku network of Flax blocks on handwritten digits"
    parser = commands.add_parser("demo", help=text, description=text)
    add = parser.add_argument
    add("--epochs", type=_whole(1, 10_000), default=15, help="default: %(default)s")
    add("--seed", type=_whole(0, 2**32 - 1), default=0, help="default: %(default)s")
    add("--plot", type=_png, metavar="FILE.png", help="save loss and accuracy curves")
    parser.set_defaults(run=demo.run, extra="demo", packages=demo.EXTRAS)


def _add_command(
    commands: Commands, run: Callable[[argparse.Namespace], int], text: str
) -> Any:
    parser = commands.add_parser(run.__name__, help=text, description=text)
    parser.set_defaults(wrong=parser.error)
    parser.add_argument("--json", action="store_true", help="for a program to read")
    parser.set_defaults(run=run, extra="checkpoint", packages=PACKAGES)
    return parser.add_argument


def _add_source(add: Any) -> None:
    text = "what to take; a tree without it is the whole of it (params, say)"
    pick = {"metavar": "NAME", "action": "append", "default": []}
    add("--collection", help=text, **pick)
    add("--step", type=_whole(0, 2**63), help="of a folder of steps; the newest")


def _add_show(commands: Commands) -> None:
    add = _add_command(commands, show, "show a checkpoint and where it goes in Haiku")
    add("ckpt", metavar="CKPT", help="a file or a directory")
    add("--name", type=_haiku_name, default="net", help="in Haiku (%(default)s)")
    _add_source(add)
    add("--haiku", action="store_true", help="it is one of a Haiku code base")


def _add_convert(commands: Commands) -> None:
    text = "convert a checkpoint from Flax's layout to Haiku's, or back"
    add = _add_command(commands, convert, text)
    add("src", metavar="SRC", help="a file or a directory")
    add("dst", metavar="DST", help="its suffix tells the format; without one, Orbax")
    _add_source(add)
    add("--name", type=_haiku_name, help="of the module in Haiku")
    add("--to", choices=("haiku", "flax"), default="haiku", help="default: %(default)s")
    text = "SRC is one of a Haiku code base, and stays so: the format changes alone"
    add("--haiku", action="store_true", help=text)
    names = ("hk_bridge", "plain", "dotted", "alphafold", "weathernext")
    add("--names", choices=names, default=names[0], help="how Haiku's are spelled")


def _add_verify(commands: Commands) -> None:
    text = "check that a linen module is the same in Haiku as in Flax"
    add = _add_command(commands, verify, text)
    add("module", metavar="pkg.mod:Class", help="or a function that builds one")
    pair = {"metavar": "K=V", "type": parse_setting, "action": "append"}
    add("--config", default=[], help="an argument of the class", **pair)
    add("--kwarg", default=[], help="a keyword input of the call", **pair)
    array = {"metavar": "ARRAY", "type": parse_input, "action": "append"}
    add("--input", default=[], help="an input, like 'f32[2,224,224,3]'", **array)
    add("--variables", metavar="CKPT", help="initial values")
    _add_source(add)
    add("--steps", type=_whole(1, 10_000), help="default: 3")
    add("--name", type=_haiku_name, help="in Haiku")


def _add_match(commands: Commands) -> None:
    text = "find which leaf of a native Haiku network is which of a Flax module"
    add = _add_command(commands, match, text)
    add("module", metavar="pkg.mod:Class", help="of Flax, or what builds one")
    add("variables", metavar="CKPT", help="its weights")
    add("network", metavar="pkg.mod:function", help="of Haiku, transformed or not")
    array = {"metavar": "ARRAY", "type": parse_input, "action": "append"}
    add("--input", default=[], help="an input, like 'f32[2,224,224,3]'", **array)
    pair = {"metavar": "K=V", "type": parse_setting, "action": "append", "default": []}
    add("--config", help="an argument of the class", **pair)
    add("--kwarg", help="a keyword input of both calls", **pair)
    add("--flax-kwarg", help="of Flax's alone, train=False", **pair)
    add("--haiku-kwarg", help="of Haiku's alone, is_training=False", **pair)
    add("--table", metavar="FILE", type=table_file, help="save the table of leaves")
    _add_source(add)


# A command adds its parser, whose defaults name what runs it, and the extra that this
# needs with the packages in it.
_COMMANDS = (_add_demo, _add_show, _add_convert, _add_match, _add_verify)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command line `argv`, by default that of the process.

    Returns:
      0 if the command did its work, 1 if what it checks does not hold, 2 if it could
      not start: an extra is not installed, a file cannot be read; 141, as shells have
      it, if who read its output went away.

    Raises:
      SystemExit: as argparse does, after `--help` (0) or wrong arguments (2).
    """
    parser = argparse.ArgumentParser(
        prog="python -m hk_bridge",
        description="Any Flax linen module as a Haiku module.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    try:
        code = int(args.run(args))
        print(end="", flush=True)
        return code
    except BrokenPipeError:  # `show ... | head` has enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # for what is flushed at exit
        return 141
    except CannotStart as error:
        line = _tables.printable(" ".join(str(error).split()))
        print(f"{args.command}: {line}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in args.packages:
            raise
        line = f"{args.command} needs {package}: pip install 'hk_bridge[{args.extra}]'"
        print(line, file=sys.stderr)
        return 2
