"""`python -m fastwhisper` is the program `fastwhisper`."""

import sys

from .cli.main import main

sys.exit(main())
