"""The `gosvae` command."""
