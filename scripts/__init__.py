"""The programs that a user starts; what they are made of lies in the folders."""

import clipscore  # noqa: F401  says which package is missing
