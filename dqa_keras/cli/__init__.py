"""The `dqa` command."""
