"""Places where sessions last: one contract (`base`), a store in memory, and one in SQLite."""
