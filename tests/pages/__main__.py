"""`python -m tests.pages FOLDER`: the site.

README is its front page. The notebooks are pages, as they were run; the reference is
pdoc's. Two pages are made of what the tests know: every class of Flax, and the versions
with which the tests ran. A link that leads nowhere is an error.
"""

import argparse
import pathlib
import sys

from pages import links
from pages import make

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    text = "the folder where .ci/run notes with which versions its steps passed"
    parser.add_argument("--ran", type=pathlib.Path, help=text)
    args = parser.parse_args()
    make.site(args.folder, args.ran)
    broken = list(links.broken(args.folder))
    print(*broken, sep="\n", end="\n" * bool(broken))
    sys.exit(1 if broken else 0)
