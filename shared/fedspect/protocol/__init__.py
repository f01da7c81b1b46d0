r"""Protocols outside Flower: enrolment over TLS, and node to worker on one device.

``enrolment.proto`` and ``worker.proto`` are the contract. The two ``*_pb2`` modules are made from them by
protoc 29 (protobuf 5.29), because code of that version loads under protobuf 5.29 (Python 3.8) and 6 alike::

    python -m pip install grpcio-tools==1.70.0     # in an environment of its own
    python -m grpc_tools.protoc -I shared --python_out=shared --pyi_out=shared \
        shared/fedspect/protocol/enrolment.proto shared/fedspect/protocol/worker.proto

Client and server sides of a service need no generated code: ``services`` reads them off the descriptor.
"""
