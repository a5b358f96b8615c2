"""The demo benchmark: its pictures, its runs, its tables."""
