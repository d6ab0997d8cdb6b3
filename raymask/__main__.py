"""`python -m raymask` is `raymask`."""

from raymask.cli import main

if __name__ == "__main__":
    main()
