"""Search for settings with Optuna: trials are runs, a study is one file of the runs folder, and it can be continued."""
