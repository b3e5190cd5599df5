"""`sartor prune`: learned channel pruning."""
