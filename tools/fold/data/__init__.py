"""Training features on small integers: what is drawn, from which rows, and what clusters of rows look like."""
