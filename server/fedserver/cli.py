"""The `fedserver` command, put together from `fedserver.commands`."""

from __future__ import annotations

from fedserver.commands import backup, bases, logs, models, plants, report, serving, workspace
from fedspect.console import make_app, run_app

app = make_app("fedserver", "Headquarters of a federation: invite plants, run rounds, publish models.")
for part in (workspace, bases, plants, serving, logs, models, report, backup):
    part.add_to(app)


def main() -> None:
    """Run the command."""
    run_app(app)


if __name__ == "__main__":
    main()
