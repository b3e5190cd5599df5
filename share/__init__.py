"""What the tools share; imports neither the tools nor the command line."""
