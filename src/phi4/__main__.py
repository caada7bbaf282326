"""`python -m phi4` is the command line."""

from phi4.cli import main

if __name__ == "__main__":
    main()
