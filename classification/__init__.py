"""Test-time adaptation for image classification."""
