"""The figures of a decode, in the order of the page; all but the last are of the chosen point."""
