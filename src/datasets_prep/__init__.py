"""Dataset preparation over tieredstore."""
