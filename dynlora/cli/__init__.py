"""The command line: one thin file per command group; what a command does is in the folder it calls."""
