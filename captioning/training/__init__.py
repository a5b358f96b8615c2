"""Training the mapper between CLIP and the language model."""
