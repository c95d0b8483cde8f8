"""The command: `swathe`, or `python -m swathe`."""

import os
import sys
from pathlib import Path

from .own_packages import HERE


def main() -> None:
    """Run the command, which takes nothing from the working directory but data; the process ends here."""
    try:
        here = Path(os.getcwd()).resolve()
    except OSError:  # it was removed, or may not be looked at: nothing is imported from there
        here = HERE
        sys.path[:] = [folder for folder in sys.path if os.path.isabs(folder)]
    if here != HERE:  # `python -m` puts it first, an empty or relative entry of PYTHONPATH wherever it stands
        sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != here]
    from train.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
