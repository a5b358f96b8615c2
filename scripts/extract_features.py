"""Extract caption features with the roots of configs/paths.yaml.

`python -m scripts.extract_features NAME --dataset coco ...` writes OUTPUT_ROOT/features/NAME. The other options are
those of `python -m captioning.features`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from captioning import features
from clipscore.config.load import ConfigError, roots


def main(words: Sequence[str]) -> int:
    """Command line; returns the exit code."""
    if not words or words[0].startswith("-"):
        return features.main(["--help"])
    name, *options = words
    try:
        found = roots()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    places = ["--data-root", found["data_root"], "--pretrained-root", found["pretrained_root"]]
    return features.main([*places, "--out", str(Path(found["output_root"]) / "features" / name), *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
