"""The command line: `python -m hk_bridge COMMAND`."""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import TypeAlias

from hk_bridge import _demo

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EPILOG = """example:
  python -m hk_bridge demo --epochs 15 --plot curves.png
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


def _add_demo(commands: Commands) -> None:
    text = "train a Haiku network of Flax blocks on handwritten digits"
    demo = commands.add_parser("demo", help=text, description=text)
    add = demo.add_argument
    add("--epochs", type=_whole(1, 10_000), default=15, help="default: %(default)s")
    add("--seed", type=_whole(0, 2**32 - 1), default=0, help="default: %(default)s")
    add("--plot", type=_png, metavar="FILE.png", help="save loss and accuracy curves")
    demo.set_defaults(run=_demo.run, extra="demo", packages=_demo.EXTRAS)


# A command adds its parser, whose defaults name what runs it, and the extra that this
# needs with the packages in it.
_COMMANDS = (_add_demo,)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command line `argv`, by default that of the process.

    Returns:
      0 if the command did its work, 1 if what it checks does not hold, 2 if it could
      not start: an extra is not installed.

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
        return int(args.run(args))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in args.packages:
            raise
        line = f"{args.command} needs {package}: pip install 'hk_bridge[{args.extra}]'"
        print(line, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
