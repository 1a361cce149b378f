"""Processes of a runs folder, free of torch: spawn, queue, launch, sweep, uploads, trash."""
