"""Test-time adaptation for image captioning."""
