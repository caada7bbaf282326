"""`phi4` and `python -m phi4` are the command line."""

import signal
import sys


def main() -> None:
    """Runs the command line. Its imports take half a second, in which Ctrl-C is no fault either."""
    try:
        from phi4.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # The interpreter waits for the engine's step; another Ctrl-C meanwhile ends the process at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
