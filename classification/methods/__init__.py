"""One file a method of classification, beside RLCF's own loop."""
