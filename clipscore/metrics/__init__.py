"""How good results are: caption metrics, and whether a difference is chance."""
