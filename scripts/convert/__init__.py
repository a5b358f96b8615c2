"""Data sets in the forms that others store them, into the folders that runs look for."""
