"""The command line: one file a command group, thin; what a command does is in the folder it calls."""
