"""Test-time adaptation for image-text retrieval."""

import clipscore  # noqa: F401  says which package is missing
