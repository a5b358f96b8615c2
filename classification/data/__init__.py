"""Labelled images on disk: layouts, class names, class folders, split files."""
