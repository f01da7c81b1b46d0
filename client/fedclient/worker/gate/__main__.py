"""`python -m fedclient.worker.gate`: one deployment, for `fedclient engines build`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Optional

from fedclient.worker.child_process import Report, tell
from fedclient.worker.settings import WorkerSettings


def main(arguments: Optional[List[str]] = None) -> int:
    """Build, test and (with ``--activate``) activate a version."""
    parser = argparse.ArgumentParser(description="Engines of a version; asked by `fedclient engines build`.")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--who", default="")
    parser.add_argument("--why", default="")
    parser.add_argument("--activate", action="store_true")
    parser.add_argument("--kind", help="instead of that of engines.toml")
    parser.add_argument("--precision", help="instead of that of engines.toml")
    given = parser.parse_args(arguments)

    def work(report: Report) -> Any:
        from fedclient.worker.gate.pipeline import Deployer
        from fedclient.worker.training.setup import Site

        settings = WorkerSettings.read(given.settings)
        deployer = Deployer(
            settings,
            lambda: Site(settings, lambda done, total: report("pictures", done, total)),
            look_again=False,
        )
        became = deployer.deploy(
            given.folder,
            who=given.who,
            why=given.why,
            activate=given.activate,
            again=True,
            overrides={"engine.kind": given.kind, "engine.precision": given.precision},
            report=report,
        )
        return became.model_dump(mode="json")

    return tell(work)


if __name__ == "__main__":
    sys.exit(main())
