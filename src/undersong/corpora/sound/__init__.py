"""Clips: how they are decoded and judged, mixed with noise, and spoken."""
