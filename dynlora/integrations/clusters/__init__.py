"""Ray as the engine of sweeps: each run is a task of a cluster, and one whose worker is lost goes on elsewhere."""
