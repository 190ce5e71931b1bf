"""One file per mixing method; the file's name is the method's name."""
