"""Weights of any CLIP: found, checked, read safely, put on a device."""
