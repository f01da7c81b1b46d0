"""Explanations: class activation maps and their overlays."""
