"""DiffoRA: which modules are adapted is learned first."""
