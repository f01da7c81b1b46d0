"""Run a module as if this device's clock were wrong: ``python -m shifted_clock SECONDS MODULE ARGUMENTS``.

Shifted is what Python tells; gRPC and the TLS library keep the true time. That a certificate is good on a
slow device is a matter of its dates (``fedserver.enrolment.authority``).
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time
import types
from typing import Any

from grpc import _channel

SHIFT = float(sys.argv[1])
true_time, TrueDatetime = time.time, datetime.datetime


class ShiftedDatetime(TrueDatetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return TrueDatetime.now(tz) + datetime.timedelta(seconds=SHIFT)


if __name__ == "__main__":
    vars(_channel)["time"] = types.SimpleNamespace(**vars(time))  # it makes deadlines for the true time
    vars(time)["time"] = lambda: true_time() + SHIFT
    vars(datetime)["datetime"] = ShiftedDatetime
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
