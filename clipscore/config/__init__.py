"""One configuration of a run: its types, where each value came from, and its errors in words."""
