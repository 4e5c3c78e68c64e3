"""Mounted file systems: stages, marks, versions, signs of life, and what is left over."""
