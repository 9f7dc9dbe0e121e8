"""``python -m crossfer``."""

from crossfer.cli import main

if __name__ == "__main__":
    main()
