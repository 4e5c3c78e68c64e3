"""One tier, the chain of them, and what they say of an artifact."""
