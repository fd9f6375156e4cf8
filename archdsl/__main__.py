"""`python -m archdsl`: the command line."""

from archdsl.cli import main

main()
