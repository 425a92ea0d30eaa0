"""`python -m tlopt` is the command `tlopt`."""

from tlopt.cli.main import main

main()
