"""Ray as the engine of sweeps: each run is a task of a cluster, and a lost one continues from its checkpoint."""
