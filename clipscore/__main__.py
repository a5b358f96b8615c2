"""`python -m clipscore`: score a file of captions, see `clipscore.metrics.command`."""

import sys

from clipscore.metrics.command import main

if __name__ == "__main__":
    sys.exit(main())
