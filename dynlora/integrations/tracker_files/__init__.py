"""Runs that other programs recorded: read from event files of TensorBoard, kept as runs to compare.

No server is needed. The id of such a run follows from its start and from where it is, so importing again finds it.
"""
