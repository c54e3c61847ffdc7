"""`python -m hk_bridge COMMAND`."""

import sys

from hk_bridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
