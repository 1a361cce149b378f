"""Ray as the engine of sweeps: each run is a task of a cluster, and a lost one continues from its checkpoint.

Run folders are made as a plain sweep makes them, but without a mark in `.active`, so that no queue starts them. A task
trains its run in a child process (`task.py`), the same `dynlora resume ID` that the queue starts. The kernel ends the
child with its worker (`die_with_parent.py`), so that a retry never trains beside it. Ray keeps nothing that a retry
needs.
"""
