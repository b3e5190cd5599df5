"""The AlphaFold 2 monomer model, one module a file."""
