"""The optimiser of a run: rates, clipping, Adam, and the average of the weights."""
