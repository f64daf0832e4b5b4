"""`python -m commplan.planner.cli`: the `commplan` command without its script."""

from . import main

main()
