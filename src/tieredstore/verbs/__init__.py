"""What a store does, a module for each verb; nothing here is a user interface."""
