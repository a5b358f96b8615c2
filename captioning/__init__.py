"""Test-time adaptation for image captioning."""

import clipscore  # noqa: F401  says which package is missing
