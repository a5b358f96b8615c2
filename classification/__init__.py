"""Test-time adaptation for image classification."""

import clipscore  # noqa: F401  says which package is missing
