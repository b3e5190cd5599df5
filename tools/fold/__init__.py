"""`sartor fold-train`: training of AlphaFold 2 class models."""
