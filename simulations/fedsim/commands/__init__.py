"""Arguments and printing of the `fedsim` command."""
