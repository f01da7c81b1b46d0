"""The process in which a run's ServerApp lives: it claims the run from the SuperLink and runs it.

Flower has two programs for this: one that looks for runs every second, and one that it starts for each run
with the run's token on its command line, where every user of the machine can read it. Here the server
starts this process when it submits a run; it proves itself with a secret that only the workspace's owner
knows, and the token stays in its memory. Whether a run goes on is then simply whether this process lives.

Run as ``python -m fedserver.flower.serverapp_process``; see ``superlink``.
"""

from __future__ import annotations

import os
import sys
import time
from queue import Queue

import grpc
from flwr.common.grpc import create_channel
from flwr.proto.appio_pb2 import ClaimTaskRequest, PullPendingTasksRequest
from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub
from flwr.server.serverapp.app import run_serverapp
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor, SuperExecAuthClientInterceptor
from flwr.supercore.interceptors.superexec_auth_interceptor import SERVERAPPIO_SUPEREXEC_METHODS

from fedserver.flower.superlink import ADDRESS_VARIABLE, PARENT_VARIABLE, SECRET_VARIABLE
from fedspect.graceful_shutdown import exit_with_parent

CLAIM_WITHIN = 30.0  # seconds
LOOK = 0.1


def claim(address: str, secret: bytes) -> str:
    """The token of the run that waits to be started.

    Raises:
        TimeoutError: no run waits.
        grpc.RpcError: the SuperLink does not answer, or does not believe the secret.

    """
    interceptors = [
        RuntimeVersionClientInterceptor(component_name="SuperExec"),
        SuperExecAuthClientInterceptor(master_secret=secret, protected_methods=SERVERAPPIO_SUPEREXEC_METHODS),
    ]
    channel: grpc.Channel = create_channel(server_address=address, insecure=True, interceptors=interceptors)
    stub = ServerAppIoStub(channel)
    deadline = time.monotonic() + CLAIM_WITHIN
    try:
        while time.monotonic() < deadline:
            for task in stub.PullPendingTasks(PullPendingTasksRequest(), timeout=10.0).tasks:
                token: str = stub.ClaimTask(ClaimTaskRequest(task_id=task.task_id), timeout=10.0).token
                if token:
                    return token
            time.sleep(LOOK)
    finally:
        channel.close()
    raise TimeoutError("no run waits to be started")


def main() -> None:
    """Claim a run and run it to its end."""
    address = os.environ.pop(ADDRESS_VARIABLE)
    secret = os.environ.pop(SECRET_VARIABLE).encode("ascii")
    exit_with_parent(int(os.environ.pop(PARENT_VARIABLE)))
    try:
        token = claim(address, secret)
    except (TimeoutError, grpc.RpcError) as error:
        sys.exit(f"the run could not be claimed: {error}")
    run_serverapp(serverappio_api_address=address, log_queue=Queue(), token=token, insecure=True)


if __name__ == "__main__":
    main()
