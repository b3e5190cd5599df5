"""Geometry in torch, on the device, for any leading dimensions."""
