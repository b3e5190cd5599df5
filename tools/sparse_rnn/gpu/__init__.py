"""Recurrences on GPUs: weights that stay in shared memory over all steps."""
