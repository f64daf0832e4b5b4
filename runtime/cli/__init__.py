"""Subcommands of `commplan` that execute plans. Imported by name from the planner's command line."""
