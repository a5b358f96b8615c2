"""One self-contained page about finished or unfinished runs: `python -m scripts.report RUN [RUN ...]`."""
