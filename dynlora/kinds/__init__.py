"""Kinds of run, one folder each: a kind is registered by existing.

`kind.py` declares it, `settings.py` says what it can be asked for, `result.py` reads what it recorded, `panels/` draws
it, and `work/` does the work; only `work/` loads torch.
"""
