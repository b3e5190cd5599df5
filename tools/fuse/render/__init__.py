"""Renderers: a schedule becomes the source of a kernel."""
