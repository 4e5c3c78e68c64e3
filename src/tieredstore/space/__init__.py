"""Room in mounted tiers: measured, reserved, pinned, and made by evicting."""
