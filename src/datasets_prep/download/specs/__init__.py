"""Specifications of datasets, one TOML file each."""
