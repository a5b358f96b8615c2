"""The official schedule of work against ours: time, memory, agreement."""
