"""From a chain to a training sample: what is drawn and how it is summarised, compiled, on small integers."""
