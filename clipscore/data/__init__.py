"""Images and captions on disk: found in the layouts that are in use, checked, opened."""
