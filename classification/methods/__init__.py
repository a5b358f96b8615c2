"""One file a method of classification; its name is the file's."""
