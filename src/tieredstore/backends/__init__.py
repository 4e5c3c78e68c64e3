"""One file for each kind of place. Nothing here knows of tiers, layouts or chains."""
