"""``python -m ws4py``: the command line."""

import sys

from ws4py.cli import main

sys.exit(main())
