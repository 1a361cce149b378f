"""Processes of a runs folder, free of torch: spawn, queue, launch, sweep, uploads, trash.

A run in the queue is a checked folder at step 0; the oldest starts as `dynlora resume ID` when nothing else trains
(`queue.py`, `launch.py`). The Launch page queues first and leaves what needs torch to the run's own process
(`quick_launch.py`), which may be one that has torch loaded already (`warm.py`). What else needs torch is asked of a
short child (`cli_client.py`). Advice, searches, checks and exports are jobs with one record each (`helper_job.py`).

A stop is a state: whoever asks first leaves `stop.json` beside `run.db`, so the run is *stopping* for everybody until
its step is done and saved. Asking again changes nothing.
"""
