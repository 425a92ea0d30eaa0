"""`python -m tlopt` is the command `tlopt`."""

from tlopt.cli import main

main()
