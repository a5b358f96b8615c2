"""One file a method of retrieval; its name is the file's."""
