"""`python -m captioning.features` into OUTPUT_ROOT/features/NAME: `python -m scripts.extract_features NAME ...`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from captioning import features
from clipscore.config.load import ConfigError, roots


def main(words: Sequence[str]) -> int:
    if not words or words[0].startswith("-"):
        return features.main(["--help"])
    name, *options = words
    try:
        out = Path(roots()["output_root"]) / "features" / name
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return features.main(["--out", str(out), *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
