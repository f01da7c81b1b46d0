"""Near-duplicate detection: pictures that show the same piece of surface."""
