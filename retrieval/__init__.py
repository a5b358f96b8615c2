"""Test-time adaptation for image-text retrieval."""
