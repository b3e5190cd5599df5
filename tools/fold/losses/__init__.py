"""The losses, one a file; each returns one number a sample."""
