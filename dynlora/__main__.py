"""`python -m dynlora` is the `dynlora` command."""

from dynlora.cli.main import main
from dynlora.jobs import environment


def run() -> None:
    """Run the command in a process that is dynlora's own."""
    environment.begin()
    main(prog_name="dynlora")


if __name__ == "__main__":
    run()
