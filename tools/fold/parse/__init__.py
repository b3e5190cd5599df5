"""Parsers of what biologists have: alignments in a3m and Stockholm, template hits in hhr, structures in mmCIF."""
