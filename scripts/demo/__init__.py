"""The embedded demo benchmark: coloured handwritten digits, two small CLIP models, no download."""
