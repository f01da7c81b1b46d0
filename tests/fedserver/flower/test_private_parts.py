"""Every part of Flower beyond its public packages that is used, and what a release that moves it breaks.

A new release of Flower is tried by installing it and running this file: each failure is a sentence. What is imported
is found in the source, so that a part that nobody named here fails as well.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import reduce
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest
from flwr.common import Message, RecordDict
from flwr.proto import fleet_pb2, message_pb2
from flwr.serverapp import strategy
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fedserver.flower.message_queue import MessageQueue

ROOT = Path(__file__).parents[3]
PACKAGES = (ROOT / "server/fedserver/flower", ROOT / "client/fedclient/node/flower")
PUBLIC = {
    "flwr.clientapp",
    "flwr.common",
    "flwr.server",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "flwr.simulation",
}

IMPORTED: Dict[str, List[str]] = {
    "A plant could not reach headquarters: the Fleet API's messages, or the headers that sign a call, moved.": [
        "flwr.common.constant:PUBLIC_KEY_HEADER",
        "flwr.common.constant:SIGNATURE_HEADER",
        "flwr.common.constant:TIMESTAMP_HEADER",
        "flwr.proto.fleet_pb2:ActivateNodeRequest",
        "flwr.proto.fleet_pb2:DeactivateNodeRequest",
        "flwr.proto.fleet_pb2:PullMessagesRequest",
        "flwr.proto.fleet_pb2:PullMessagesResponse",
        "flwr.proto.fleet_pb2:PushMessagesRequest",
        "flwr.proto.fleet_pb2:PushMessagesResponse",
        "flwr.proto.fleet_pb2:Reconnect",
        "flwr.proto.fleet_pb2_grpc:FleetStub",
        "flwr.proto.heartbeat_pb2:SendNodeHeartbeatRequest",
        "flwr.proto.message_pb2:Message",
        "flwr.proto.node_pb2:Node",
        "flwr.supercore.primitives.asymmetric:public_key_to_bytes",
        "flwr.supercore.primitives.asymmetric:sign_message",
        "flwr.supercore.runtime_version_compatibility:RuntimeVersionMetadata",
    ],
    "Messages could not be read or written (plant's journal, both ends of the link): Flower's encoders moved.": [
        "flwr.common.constant:ErrorCode",
        "flwr.common.message:make_message",
        "flwr.common.serde:message_from_proto",
        "flwr.common.serde:message_to_proto",
        "flwr.common.serde_utils:metadata_from_proto",
    ],
    "The SuperLink would cut messages into objects and keep them in a database: its state or its servicers moved.": [
        "flwr.common.constant:SUPERLINK_NODE_ID",
        "flwr.common.constant:Status",
        "flwr.server.superlink.fleet.grpc_rere.fleet_servicer:FleetServicer",
        "flwr.server.superlink.linkstate.in_memory_linkstate:InMemoryLinkState",
        "flwr.server.superlink.linkstate:linkstate_factory",
        "flwr.server.superlink.serverappio.serverappio_servicer:ServerAppIoServicer",
        "flwr.server.superlink.serverappio.serverappio_servicer:_get_authenticated_serverapp_run_id",
        "flwr.server.superlink.serverappio:serverappio_grpc",
        "flwr.server.superlink.utils:abort_grpc_context",
        "flwr.server.superlink.utils:check_abort",
        "flwr.supercore.constant:NodeStatus",
    ],
    "A lost message would be told in Flower's words or not at all: its reasons moved.": [
        "flwr.server.superlink.linkstate.utils:create_message_error_unavailable_ins_message",
        "flwr.server.superlink.linkstate.utils:create_message_error_unavailable_res_message",
        "flwr.server.superlink.linkstate.utils:MESSAGE_UNAVAILABLE_ERROR_REASON",
        "flwr.server.superlink.linkstate.utils:NODE_UNAVAILABLE_ERROR_REASON",
        "flwr.server.superlink.linkstate.utils:REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON",
    ],
    "The devices' port would read what strangers send: the interceptor that knows plants by their keys moved.": [
        "flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor:NodeAuthServerInterceptor",
        "flwr.supercore.utils:get_metadata_bytes",
    ],
    "Whoever reaches the Control API could start a run: the plug-in that asks for the secret moved.": [
        "flwr.common.constant:AuthnType",
        "flwr.common.typing:AccountInfo",
        "flwr.superlink.auth_plugin.noop_auth_plugin:NOOP_ACCOUNT_INFO",
        "flwr.superlink.auth_plugin:NoOpControlAuthnPlugin",
    ],
    "A ServerApp would wait too shortly for its start: the state of tasks moved.": [
        "flwr.supercore.corestate:in_memory_corestate",
    ],
    "Plants could not be let in and runs not be started: the Control API or the app bundle moved.": [
        "flwr.cli.build:build_fab_from_files",
        "flwr.common.serde:fab_to_proto",
        "flwr.common.serde:user_config_to_proto",
        "flwr.common.typing:Fab",
        "flwr.proto.control_pb2:ListNodesRequest",
        "flwr.proto.control_pb2:ListRunsRequest",
        "flwr.proto.control_pb2:RegisterNodeRequest",
        "flwr.proto.control_pb2:StartRunRequest",
        "flwr.proto.control_pb2:StopRunRequest",
        "flwr.proto.control_pb2:UnregisterNodeRequest",
        "flwr.proto.control_pb2_grpc:ControlStub",
    ],
    "The round loop's process could not claim its run or send messages: the ServerAppIo API moved.": [
        "flwr.common.grpc:create_channel",
        "flwr.proto.appio_pb2:ClaimTaskRequest",
        "flwr.proto.appio_pb2:PullAppMessagesRequest",
        "flwr.proto.appio_pb2:PullAppMessagesResponse",
        "flwr.proto.appio_pb2:PullPendingTasksRequest",
        "flwr.proto.appio_pb2:PushAppMessagesRequest",
        "flwr.proto.appio_pb2:PushAppMessagesResponse",
        "flwr.proto.serverappio_pb2_grpc:ServerAppIoStub",
        "flwr.server.grid:GrpcGrid",
        "flwr.server.serverapp.app:run_serverapp",
        "flwr.supercore.interceptors.superexec_auth_interceptor:SERVERAPPIO_SUPEREXEC_METHODS",
        "flwr.supercore.interceptors:RuntimeVersionClientInterceptor",
        "flwr.supercore.interceptors:SuperExecAuthClientInterceptor",
    ],
}
REPLACED = {
    "flwr.server.app:FleetServicer": "plants would get Flower's own servicer, which cuts messages",
    "flwr.server.app:generic_create_grpc_server": "the devices' port would have no bounds",
    "flwr.server.app:get_control_authn_plugins": "the Control API would ask for no secret",
    "flwr.server.app:run_superlink": "the SuperLink could not be started",
    "flwr.server.superlink.linkstate.linkstate_factory:InMemoryLinkState": "messages would be handed out once",
    "flwr.server.superlink.serverappio.serverappio_grpc:ServerAppIoServicer": "the round loop would find no messages",
    "flwr.supercore.corestate.in_memory_corestate:HEARTBEAT_DEFAULT_INTERVAL": "a slow start would end a run",
    "flwr.server.grid:GrpcGrid._stub": "the round loop could not call the SuperLink",
}
NAMED = [(sentence, part) for sentence, parts in IMPORTED.items() for part in parts]


def found(part: str) -> object:
    module, _, name = part.partition(":")
    try:
        return reduce(getattr, name.split("."), importlib.import_module(module))
    except AttributeError:
        return importlib.import_module(f"{module}.{name}")


def imported() -> Iterator[str]:
    for path in (path for package in PACKAGES for path in package.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
                yield from (f"{node.module}:{name.name}" for name in node.names)
            elif isinstance(node, ast.Import):
                yield from (f"{name.name}:" for name in node.names if name.name.split(".")[0] == "flwr")


@pytest.mark.parametrize(("sentence", "part"), NAMED, ids=[part for _, part in NAMED])
def test_what_is_imported_is_there(sentence: str, part: str) -> None:
    try:
        found(part)
    except (ImportError, AttributeError):
        pytest.fail(f"{sentence} Gone: {part}")


@pytest.mark.parametrize("part", REPLACED)
def test_what_is_replaced_is_looked_up_where_it_is_replaced(part: str) -> None:
    try:
        found(part)
    except (ImportError, AttributeError):
        pytest.fail(f"{part} is gone: {REPLACED[part]}.")


def test_every_private_part_that_is_used_is_named_here() -> None:
    private: Set[str] = {each for each in imported() if each.partition(":")[0] not in PUBLIC}
    assert private == {part for _, part in NAMED}


def test_the_port_of_devices_is_made_with_the_arguments_that_are_taken_over() -> None:
    arguments = inspect.signature(found("flwr.server.app:generic_create_grpc_server")).parameters  # type: ignore[arg-type]
    taken = {"servicer_and_add_fn", "server_address", "max_message_length", "certificates", "interceptors"}
    assert taken <= set(arguments), "Flower makes its Fleet API's server with other arguments: see fleet_port"


def test_the_state_has_the_stores_and_methods_that_the_message_queue_is_built_on() -> None:
    state = MessageQueue(NoOpFederationManager(), ObjectStoreFactory().store())
    stores = ["lock", "nodes", "message_ins_store", "message_res_store", "message_ins_id_to_message_res_id"]
    stores += ["node_public_key_to_node_id"]
    methods = ["store_message_ins", "store_message_res", "delete_messages", "delete_node"]
    methods += ["acknowledge_node_heartbeat", "get_node_id_by_public_key"]
    gone = [name for name in stores + methods if not hasattr(state, name)]
    assert not gone, f"the SuperLink's state has no {gone}: message_queue has to be adapted"


def test_a_messages_name_run_and_sender_are_set_in_its_metadata() -> None:
    names = vars(Message(RecordDict(), dst_node_id=1, message_type="train").metadata)
    assert {"_message_id", "_run_id", "_src_node_id"} <= set(names), "a reply could not be given its id"


def test_the_wire_has_the_fields_that_are_used() -> None:
    fields = {
        "PullMessagesRequest": {"node", "message_ids"},
        "PullMessagesResponse": {"messages_list", "reconnect"},
        "PushMessagesRequest": {"node", "messages_list", "clientapp_runtime_list"},
    }
    for name, used in fields.items():
        there = set(getattr(fleet_pb2, name).DESCRIPTOR.fields_by_name)
        assert used <= there, f"{name} has other fields: nodes and SuperLink would not understand each other"
    assert {"metadata", "content", "error"} <= set(message_pb2.Message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("FedAdam", ["m_t", "v_t", "fraction_train"]),
        ("FedYogi", ["m_t", "v_t", "fraction_train"]),
        ("FedAvgM", ["momentum_vector", "current_arrays", "fraction_train"]),
    ],
)
def test_a_strategys_state_is_where_it_is_saved_from(name: str, attributes: List[str]) -> None:
    made = getattr(strategy, name)()
    gone = [each for each in attributes if not hasattr(made, each)]
    assert not gone, f"{name} keeps its state elsewhere ({gone} are gone): a restarted run would lose it"
