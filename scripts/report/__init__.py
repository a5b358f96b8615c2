"""A run as one page: figures, curves, samples."""
