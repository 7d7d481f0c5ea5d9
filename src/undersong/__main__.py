"""`python -m undersong`: the command line, for launchers that start modules (`accelerate launch --module`)."""

from undersong.cli import main

if __name__ == "__main__":
    main()
