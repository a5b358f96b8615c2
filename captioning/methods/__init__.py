"""One file a method of captioning; its name is the file's."""
