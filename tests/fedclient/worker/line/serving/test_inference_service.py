"""The protocol as an unmodified Triton client speaks it, against a serving process."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Iterator

import grpc
import numpy as np
import pytest

from fedclient.worker.line.home import LineHome
from fedclient.worker.line.serving.protocol_messages import SERVICE, classes_of, methods
from line_parts import (
    Serving,
    activate,
    copy_home,
    grey,
    infer_request,
    png,
    probabilities,
    run,
)

triton = pytest.importorskip("tritonclient.grpc")
triton_utils = pytest.importorskip("tritonclient.utils")


@pytest.fixture(scope="module")
def serving(built_home: LineHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = copy_home(built_home, tmp_path_factory.mktemp("serving") / "home")
    activate(home, 1)
    with Serving(home, "--socket", str(home.folder / "line.sock")) as process:
        yield process


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[Any]:
    with triton.InferenceServerClient(serving.address) as made:
        yield made


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def encoded(*contents: bytes) -> Any:
    given = triton.InferInput("picture", [len(contents)], "BYTES")
    given.set_data_from_numpy(np.array(contents, dtype=np.object_))
    return given


def arrays(pixels: np.ndarray) -> Any:
    given = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels)
    return given


def test_health_and_facts_are_what_a_triton_client_expects(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("surface") and client.is_model_ready("surface", "1")
    assert not client.is_model_ready("surface", "2") and not client.is_model_ready("another")
    assert client.get_server_metadata().name == "fedspect"
    metadata = client.get_model_metadata("surface")
    assert {each.name: (each.datatype, list(each.shape)) for each in metadata.inputs} == {
        "picture": ("BYTES", [-1]),
        "pixels": ("UINT8", [-1, -1, -1, -1]),
    }
    assert {each.name for each in metadata.outputs} == {
        "class", "confidence", "verdict", "probabilities", "version", "reason",
    }  # fmt: skip
    config = client.get_model_config("surface").config
    assert config.name == "surface" and len(config.input) == 2 and len(config.output) == 6
    assert [each.name for each in client.get_model_repository_index().models] == ["surface"]


def test_encoded_pictures_get_the_right_answers_in_order(client: Any) -> None:
    tones = [128, 60, 200, 90]
    reply = client.infer("surface", [encoded(*(png(grey(tone, 40)) for tone in tones))])
    wanted = probabilities(np.array(tones), 1)
    np.testing.assert_allclose(reply.as_numpy("probabilities"), wanted, atol=1e-5)
    assert [each.decode() for each in reply.as_numpy("class")] == ["sound", "dark", "bright", "sound"]
    assert [each.decode() for each in reply.as_numpy("verdict")] == ["pass", "reject", "reject", "ask"]
    np.testing.assert_allclose(reply.as_numpy("confidence"), wanted.max(1), atol=1e-5)
    assert set(reply.as_numpy("version")) == {b"01" * 32}
    assert reply.get_response().model_version == "1"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_get_the_right_answers_in_both_layouts(client: Any, layout: str, channels: int) -> None:
    tones = [128, 60]
    pixels = np.stack([np.stack([grey(tone, 20)] * channels) for tone in tones])
    if layout == "NHWC":
        pixels = pixels.transpose(0, 2, 3, 1)
    reply = client.infer("surface", [arrays(np.ascontiguousarray(pixels))])
    np.testing.assert_allclose(reply.as_numpy("probabilities"), probabilities(np.array(tones), 1), atol=1e-5)


def test_only_the_wanted_outputs_are_sent(client: Any) -> None:
    reply = client.infer(
        "surface", [encoded(png(grey(60)))], outputs=[triton.InferRequestedOutput("verdict")], request_id="7"
    )
    assert [each.name for each in reply.get_response().outputs] == ["verdict"]
    assert reply.get_response().id == "7" and reply.as_numpy("verdict")[0] == b"reject"


def test_typed_contents_are_answered_in_kind(serving: Serving) -> None:
    request = infer_request()
    given = request.inputs.add(name="pixels", datatype="UINT8", shape=[1, 1, 16, 16])
    given.contents.uint_contents.extend(grey(60).ravel().tolist())
    reply = call(serving, request)
    assert not reply.raw_output_contents
    outputs = {each.name: each.contents for each in reply.outputs}
    assert list(outputs["class"].bytes_contents) == [b"dark"]
    np.testing.assert_allclose(
        outputs["probabilities"].fp32_contents, probabilities(np.array([60]), 1)[0], atol=1e-5
    )


def call(serving: Serving, request: Any, name: str = "ModelInfer", timeout: float = 20) -> Any:
    method = next(each for each in methods() if each.name == name)
    kinds = classes_of(method)
    with serving.channel() as channel:
        made = channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=kinds["request"].SerializeToString,
            response_deserializer=kinds["reply"].FromString,
        )
        return made(request, timeout=timeout)


def test_mistakes_get_the_status_that_says_whose_they_are(client: Any) -> None:
    cases = [
        (lambda: client.infer("another", [encoded(png(grey(1)))]), "NOT_FOUND"),
        (lambda: client.infer("surface", [encoded(png(grey(1)))], model_version="9"), "NOT_FOUND"),
        (lambda: client.infer("surface", [encoded(b"no picture")]), "INVALID_ARGUMENT"),
        (lambda: client.infer("surface", [encoded(png(grey(1, 50))[:-60])]), "INVALID_ARGUMENT"),
        (lambda: client.infer("surface", [arrays(np.zeros((1, 2, 5, 5), np.uint8))]), "INVALID_ARGUMENT"),
        (lambda: client.infer("surface", []), "INVALID_ARGUMENT"),
        (
            lambda: client.infer(
                "surface", [encoded(png(grey(1)))], outputs=[triton.InferRequestedOutput("shade")]
            ),
            "INVALID_ARGUMENT",
        ),
    ]
    for ask, code in cases:
        with pytest.raises(triton_utils.InferenceServerException) as caught:
            ask()
        assert code in str(caught.value), (code, caught.value)
    assert client.is_server_ready()


def test_the_second_picture_of_a_request_is_named_when_it_is_damaged(client: Any) -> None:
    with pytest.raises(Exception, match="picture 2"):
        client.infer("surface", [encoded(png(grey(60)), b"\x89PNG")])


def test_health_and_figures_over_http(serving: Serving, client: Any) -> None:
    client.infer("surface", [encoded(png(grey(60)))])
    base = f"http://{serving.addresses['http']}"
    for path in ("/health/live", "/health/ready", "/v2/health/ready"):
        assert urllib.request.urlopen(base + path, timeout=10).status == 200
    text = urllib.request.urlopen(base + "/metrics", timeout=10).read().decode()
    assert 'fedspect_line_pictures_total{label="dark",verdict="reject"}' in text
    assert 'fedspect_line_requests_total{code="ok"}' in text and "fedspect_line_version 1.0" in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(base + "/etc/passwd", timeout=10)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_health_over_ipv6(home: LineHome) -> None:
    with Serving(home, "--http", "[::1]:0") as process:
        assert process.addresses["http"].startswith("[::1]:")
        url = f"http://{process.addresses['http']}/health/live"
        assert urllib.request.urlopen(url, timeout=10).status == 200


def test_the_unix_socket_answers_too_and_only_its_user_may_enter(serving: Serving) -> None:
    path = Path(str(serving.addresses["socket"]))
    assert path.stat().st_mode & 0o077 == 0
    with triton.InferenceServerClient(f"unix:{path}") as client:
        assert client.infer("surface", [encoded(png(grey(60)))]).as_numpy("class")[0] == b"dark"


def test_statistics_count_requests(client: Any) -> None:
    before = client.get_inference_statistics("surface").model_stats[0]
    client.infer("surface", [encoded(png(grey(60)), png(grey(61)))])
    after = client.get_inference_statistics("surface").model_stats[0]
    assert after.inference_count == before.inference_count + 2
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1


def test_our_proto_has_the_names_and_numbers_of_tritons() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    theirs = {
        **service_pb2.DESCRIPTOR.message_types_by_name,
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
    }
    compared = 0
    for name, ours in SERVICE.file.message_types_by_name.items():
        for mine, other in [(ours, theirs[name])] + [
            (nested, theirs[name].nested_types_by_name[nested.name]) for nested in ours.nested_types
        ]:
            for field in mine.fields:
                same = other.fields_by_name[field.name]
                assert (field.number, field.type, field.is_repeated) == (
                    same.number,
                    same.type,
                    same.is_repeated,
                ), field.full_name
                compared += 1
    assert compared > 80
    served = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert all(method.name in served for method in methods())


def test_a_line_without_an_engine_listens_and_takes_up_the_first_one(
    built_home: LineHome, tmp_path: Path
) -> None:
    home = copy_home(built_home, tmp_path / "home")
    with Serving(home) as process, triton.InferenceServerClient(process.address) as client:
        assert client.is_server_live() and not client.is_server_ready()
        with pytest.raises(Exception, match="UNAVAILABLE"):
            client.infer("surface", [encoded(png(grey(60)))])
        activate(home, 2)
        wait_until(client.is_server_ready)
        assert client.infer("surface", [encoded(png(grey(60)))]).get_response().model_version == "2"
        activate(home, 3)
        wait_until(lambda: client.is_model_ready("surface", "3"))
        home.deployments.rollback(who="a test", why="back")
        wait_until(lambda: client.is_model_ready("surface", "2"))
        process.end()


def wait_until(holds: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_changed_thresholds_are_taken_up_and_a_mistake_in_them_is_not(home: LineHome) -> None:
    with Serving(home) as process, triton.InferenceServerClient(process.address) as client:

        def verdict() -> bytes:
            reply = client.infer("surface", [encoded(png(grey(95)))])
            return bytes(reply.as_numpy("verdict")[0])

        assert verdict() == b"pass"
        path = home.line / "line.toml"
        path.write_text('[verdicts]\ngood_classes = ["sound"]\nsure = 0.9999\n')
        wait_until(lambda: verdict() == b"ask")
        path.write_text('[verdicts]\ngood_classes = ["sond"]\n')
        wait_until(lambda: "sond" in process.log.read_text())
        assert verdict() == b"ask"
        wait_until(lambda: len(list((home.line / "review").glob("*.png"))) > 0)
        assert process.end() == 0
        words = f"listening: gRPC on {process.address}, health and metrics on http://{process.addresses['http']}\n"
        assert words in process.log.read_text()
        assert not (home.line / "serve.json").exists()


def test_tls_with_a_certificate_and_clients_of_a_known_authority_only(home: LineHome, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from line_certificates import make_certificates

    files = make_certificates(tmp_path / "tls")
    arguments = (
        "--certificate",
        files["server.pem"],
        "--key",
        files["server.key"],
        "--clients",
        files["ca.pem"],
    )
    with Serving(home, *arguments) as process:
        port = process.address.rpartition(":")[2]
        with triton.InferenceServerClient(
            f"localhost:{port}",
            ssl=True,
            root_certificates=files["ca.pem"],
            private_key=files["client.key"],
            certificate_chain=files["client.pem"],
        ) as client:
            assert client.infer("surface", [encoded(png(grey(60)))]).as_numpy("class")[0] == b"dark"
        bare = triton.InferenceServerClient(f"localhost:{port}", ssl=True, root_certificates=files["ca.pem"])
        with bare, pytest.raises(Exception, match="UNAVAILABLE"):
            bare.is_server_live()


def test_what_is_refused_is_counted_and_health_is_answered_meanwhile(home: LineHome) -> None:
    path = home.line / "line.toml"
    path.write_text('[verdicts]\ngood_classes = ["sound"]\n[serving]\nclients = 2\n')
    request = infer_request([png(np.tile(grey(60, 1000), (1, 3)))] * 8)
    kinds = {each.name: classes_of(each) for each in methods()}
    with Serving(home) as process, ExitStack() as stack:

        def calls(name: str, channel: Any) -> Any:
            return channel.unary_unary(
                f"/inference.GRPCInferenceService/{name}",
                request_serializer=kinds[name]["request"].SerializeToString,
                response_deserializer=kinds[name]["reply"].FromString,
            )

        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
        channels = [
            stack.enter_context(grpc.insecure_channel(process.address, options=options)) for _ in range(40)
        ]
        asked = [calls("ModelInfer", channel).future(request, timeout=60) for channel in channels]
        health = calls("ServerReady", channels[0])
        while not all(each.done() for each in asked):
            assert health(kinds["ServerReady"]["request"](), timeout=60).ready
        codes = Counter(each.code() for each in asked)
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        address = f"http://{process.addresses['http']}/metrics"
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        refused = codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert f'fedspect_line_requests_total{{code="resource_exhausted"}} {refused}.0' in text


def test_two_processes_never_answer_for_one_plant(home: LineHome) -> None:
    with Serving(home):
        second = run(home, "serve", "--address", "127.0.0.1:0", "--http", "127.0.0.1:0")
        assert second.returncode != 0 and "running already" in second.stdout + second.stderr
