"""The paper's tables against our records, and runs against each other: `python -m scripts.tables --help`."""
