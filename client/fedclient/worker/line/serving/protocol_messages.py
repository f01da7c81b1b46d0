"""The messages of the Open Inference Protocol, from ``open_inference.binpb`` beside this file.

They live in a pool of descriptors of their own: the package is called ``inference`` as the protocol wants it,
and Triton's client, which carries the same names, may be loaded into the same process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Type

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    content = Path(__file__).with_name("open_inference.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()
SERVICE: ServiceDescriptor = _POOL.FindServiceByName(f"{PACKAGE}.GRPCInferenceService")


def message(name: str) -> Any:
    """The class of one message, for example ``ModelInferRequest`` (typed Any: its fields are made at run time)."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods() -> List[MethodDescriptor]:
    """The methods of the service."""
    return list(SERVICE.methods)


def classes_of(method: MethodDescriptor) -> Dict[str, Type[Message]]:
    """The classes of a method's request and reply."""
    return {"request": GetMessageClass(method.input_type), "reply": GetMessageClass(method.output_type)}
