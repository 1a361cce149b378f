"""The list of runs: table, search, filters, bulk actions."""
