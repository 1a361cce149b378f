"""The figures of a comparison: each file of this folder is one."""
