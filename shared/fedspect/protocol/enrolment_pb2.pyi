from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChallengeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class ChallengeReply(_message.Message):
    __slots__ = ("protocol", "nonce", "server_time")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    nonce: bytes
    server_time: float
    def __init__(self, protocol: _Optional[int] = ..., nonce: _Optional[bytes] = ..., server_time: _Optional[float] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("token_id", "secret", "public_key", "nonce", "signature", "software", "start")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    token_id: bytes
    secret: bytes
    public_key: bytes
    nonce: bytes
    signature: bytes
    software: str
    start: bytes
    def __init__(self, token_id: _Optional[bytes] = ..., secret: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., software: _Optional[str] = ..., start: _Optional[bytes] = ...) -> None: ...

class AuthenticateRequest(_message.Message):
    __slots__ = ("public_key", "nonce", "signature", "software", "start")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    nonce: bytes
    signature: bytes
    software: str
    start: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., software: _Optional[str] = ..., start: _Optional[bytes] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("name", "size", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("federation", "plant", "session", "fleet_addresses", "classes", "aliases", "base_hash", "base_files", "settings_json")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    PLANT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FLEET_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    BASE_HASH_FIELD_NUMBER: _ClassVar[int]
    BASE_FILES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_JSON_FIELD_NUMBER: _ClassVar[int]
    federation: str
    plant: str
    session: bytes
    fleet_addresses: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.ScalarMap[str, str]
    base_hash: str
    base_files: _containers.RepeatedCompositeFieldContainer[FileEntry]
    settings_json: str
    def __init__(self, federation: _Optional[str] = ..., plant: _Optional[str] = ..., session: _Optional[bytes] = ..., fleet_addresses: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Mapping[str, str]] = ..., base_hash: _Optional[str] = ..., base_files: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ..., settings_json: _Optional[str] = ...) -> None: ...

class FetchBaseRequest(_message.Message):
    __slots__ = ("session", "base_hash", "name", "offset")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BASE_HASH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    base_hash: str
    name: str
    offset: int
    def __init__(self, session: _Optional[bytes] = ..., base_hash: _Optional[str] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class BaseChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("session", "report_json")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    report_json: str
    def __init__(self, session: _Optional[bytes] = ..., report_json: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PublishedRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    def __init__(self, session: _Optional[bytes] = ...) -> None: ...

class PublishedReply(_message.Message):
    __slots__ = ("number", "version_hash", "base_hash", "files")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_HASH_FIELD_NUMBER: _ClassVar[int]
    BASE_HASH_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    number: int
    version_hash: str
    base_hash: str
    files: _containers.RepeatedCompositeFieldContainer[FileEntry]
    def __init__(self, number: _Optional[int] = ..., version_hash: _Optional[str] = ..., base_hash: _Optional[str] = ..., files: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ...) -> None: ...

class FetchVersionRequest(_message.Message):
    __slots__ = ("session", "version_hash", "name", "offset")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_HASH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    version_hash: str
    name: str
    offset: int
    def __init__(self, session: _Optional[bytes] = ..., version_hash: _Optional[str] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ReportDeploymentRequest(_message.Message):
    __slots__ = ("session", "report_json")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    report_json: str
    def __init__(self, session: _Optional[bytes] = ..., report_json: _Optional[str] = ...) -> None: ...

class ReportDeploymentReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
