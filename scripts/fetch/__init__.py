"""Downloads: weights and annotations, checked and resumable."""
