"""`python -m dynlora` is the `dynlora` command."""

from dynlora.cli import main

main(prog_name="dynlora")
