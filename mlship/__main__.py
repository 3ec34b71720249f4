"""`python -m mlship` is `mlship`."""

from mlship.cli.main import main

main()
