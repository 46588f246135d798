"""One package a method."""

import ops  # noqa: F401  (before torch: see there)
