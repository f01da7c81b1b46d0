"""``python -m fedclient.worker.line COMMAND --home FOLDER ...``."""

from __future__ import annotations

from fedclient.worker.line.cli import main

if __name__ == "__main__":
    main()
