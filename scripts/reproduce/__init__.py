"""The ladder to the paper's tables: its rungs, what is expected of each, and why one is off."""
