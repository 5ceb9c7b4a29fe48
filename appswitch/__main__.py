"""`python -m appswitch`."""

from appswitch.cli.main import main

main()
