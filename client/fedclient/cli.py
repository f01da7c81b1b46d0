"""The `fedclient` command, put together from ``fedclient.commands``."""

from __future__ import annotations

from fedclient.commands import engines, golden, line, plant
from fedspect.console import make_app, run_app

app = make_app("fedclient", "A plant in a federation: join once, stay, see what it is doing, leave.")
plant.add_to(app)
engines.add_to(app)
golden.add_to(app)
line.add_to(app)


def main() -> None:
    """Run the command."""
    run_app(app)


if __name__ == "__main__":
    main()
