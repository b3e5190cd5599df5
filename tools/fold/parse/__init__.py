"""Readers of the files that people have: alignments in a3m, Stockholm and hhr, structures in mmCIF."""
