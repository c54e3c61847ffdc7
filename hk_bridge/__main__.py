"""`python -m hk_bridge COMMAND`."""

import os
import sys

# Python looks for modules in the folder where it is started: a `safetensors.py` that
# lies beside weights would run. `verify` alone looks there, for the user's module.
if __name__ == "__main__" and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from hk_bridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
