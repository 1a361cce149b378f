"""`python -m dynlora` is the `dynlora` command."""

from dynlora.cli.main import main

main(prog_name="dynlora")
