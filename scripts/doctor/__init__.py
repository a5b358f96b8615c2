"""What is missing for a run, and exactly where it was looked for."""
