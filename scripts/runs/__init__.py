"""One run: command line, loop, run folder, records, locks, shards, summary."""
