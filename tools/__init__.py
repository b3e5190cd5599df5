"""The four tools; none imports another."""
