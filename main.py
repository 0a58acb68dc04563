"""The command line of attnlab: ``python main.py --help``."""

from attnlab.cli import main

if __name__ == "__main__":
    main()
