"""`python -m gosvae`: the `gosvae` command."""

from __future__ import annotations

from gosvae.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
