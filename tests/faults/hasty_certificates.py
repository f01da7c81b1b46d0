"""`fedserver` whose server certificate is due for renewal at every look, and which looks every so many seconds."""

from __future__ import annotations

import os

from fedserver import cli
from fedserver.enrolment import authority, endpoint

if __name__ == "__main__":
    vars(authority)["RENEW_DAYS"] = 2 * authority.SERVER_DAYS
    vars(endpoint)["LOOK_CERTIFICATE"] = float(os.environ["LOOK_CERTIFICATE"])
    cli.main()
