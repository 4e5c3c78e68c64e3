"""Caches of Hugging Face ``datasets`` that never collide: built once, and a private one a job."""
