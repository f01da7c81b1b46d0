"""`python -m fedclient.worker.golden`: look through the plant's pictures, for `fedclient golden init`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List, Optional

from fedclient.worker.child_process import Report, tell
from fedclient.worker.golden import GoldenSet
from fedclient.worker.golden.choosing import GOLDEN
from fedclient.worker.settings import WorkerSettings


def main(arguments: Optional[List[str]] = None) -> int:
    """Take the held-out share into the golden set."""
    parser = argparse.ArgumentParser(description="The golden set; asked by `fedclient golden init`.")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args(arguments)

    def work(report: Report) -> Any:
        from fedclient.worker.gate.settings import read_deploy_settings
        from fedclient.worker.training.setup import Site

        settings = WorkerSettings.read(given.settings)
        limit = given.limit or read_deploy_settings(settings.home).gate.golden_limit
        site = Site(settings, lambda done, total: report("pictures", done, total))
        golden = GoldenSet(settings.home / "golden")
        new = golden.take(site.split.sides[GOLDEN], limit)
        return {"new": new, "share": len(site.split.sides[GOLDEN]), "given_up": site.split.given_up}

    return tell(work)


if __name__ == "__main__":
    sys.exit(main())
