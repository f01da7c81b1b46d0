from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedserver.enrolment.plant_registry import PlantRegistry
from fedserver.enrolment.tokens import duration, invite, redeem, revoke
from fedspect.errors import EnrolmentError, SettingsError
from fedspect.protocol.join_token import JoinToken

NOW = 1_800_000_000.0


@pytest.fixture
def registry(tmp_path: Path) -> PlantRegistry:
    made = PlantRegistry(tmp_path)
    made.create()
    return made


def invited(
    registry: PlantRegistry, plant: str = "plant-a", *, lifetime: int = 3600, replace: bool = False
) -> JoinToken:
    return invite(
        registry,
        plant,
        lifetime=lifetime,
        addresses=[("localhost", 9094)],
        fingerprint=bytes(32),
        replace=replace,
        now=NOW,
    )


def use(registry: PlantRegistry, token: JoinToken, key: str = "key-a", *, after: float = 1.0) -> str:
    return redeem(registry, token.token_id, token.secret, key, now=NOW + after).name


def test_a_token_admits_one_device_under_the_invited_name(registry: PlantRegistry) -> None:
    token = invited(registry)
    assert use(registry, token) == "plant-a"
    plant = registry.read().plants["plant-a"]
    assert (plant.state, plant.public_key, plant.joined) == ("joined", "key-a", NOW + 1)


def test_a_token_used_by_another_device_is_refused(registry: PlantRegistry) -> None:
    token = invited(registry)
    use(registry, token)
    with pytest.raises(EnrolmentError, match="used already") as refused:
        use(registry, token, "key-b")
    assert "`fedserver invite plant-a --replace`" in str(refused.value.remedy)
    assert registry.read().plants["plant-a"].public_key == "key-a"


def test_the_same_device_may_repeat_itself_when_the_answer_was_lost(registry: PlantRegistry) -> None:
    token = invited(registry)
    use(registry, token)
    assert use(registry, token, after=9999.0) == "plant-a"


def test_of_many_devices_with_one_token_exactly_one_is_admitted(registry: PlantRegistry) -> None:
    token = invited(registry)

    def attempt(number: int) -> bool:
        try:
            use(registry, token, f"key-{number}")
        except EnrolmentError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_an_expired_token_is_refused_with_its_time(registry: PlantRegistry) -> None:
    token = invited(registry, lifetime=60)
    with pytest.raises(EnrolmentError, match=r"expired on 20\d\d-"):
        use(registry, token, after=60.0)
    assert registry.read().plants["plant-a"].state == "invited"


def test_a_wrong_secret_and_an_unknown_token_get_the_same_answer(registry: PlantRegistry) -> None:
    token = invited(registry)
    messages = set()
    for token_id, secret in ((token.token_id, bytes(24)), (bytes(8), token.secret)):
        with pytest.raises(EnrolmentError) as caught:
            redeem(registry, token_id, secret, "key-a", now=NOW)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_the_registry_never_holds_a_secret(registry: PlantRegistry) -> None:
    token = invited(registry)
    content = registry.path.read_bytes()
    assert token.secret.hex().encode() not in content and token.secret not in content


def test_a_second_invitation_withdraws_the_first(registry: PlantRegistry) -> None:
    first, second = invited(registry), invited(registry)
    with pytest.raises(EnrolmentError, match="withdrawn"):
        use(registry, first)
    assert use(registry, second) == "plant-a"


def test_two_plants_of_one_name_are_refused_unless_the_device_is_replaced(registry: PlantRegistry) -> None:
    use(registry, invited(registry))
    with pytest.raises(EnrolmentError, match="joined already"):
        invited(registry)
    use(registry, invited(registry, replace=True), "key-b")
    assert registry.read().plants["plant-a"].public_key == "key-b"


def test_one_device_cannot_be_two_plants(registry: PlantRegistry) -> None:
    use(registry, invited(registry, "plant-a"))
    with pytest.raises(EnrolmentError, match="another plant"):
        use(registry, invited(registry, "plant-b"), "key-a")
    assert registry.read().plants["plant-b"].state == "invited"


def test_a_revoked_plant_can_use_neither_old_nor_unused_tokens(registry: PlantRegistry) -> None:
    used = invited(registry)
    use(registry, used)
    unused = invited(registry, replace=True)
    assert revoke(registry, "plant-a").state == "revoked"
    for token in (used, unused):
        with pytest.raises(EnrolmentError, match="revoked"):
            use(registry, token)
    assert registry.read().joined() == []


def test_a_revoked_plant_can_be_invited_again_with_a_new_key(registry: PlantRegistry) -> None:
    use(registry, invited(registry))
    revoke(registry, "plant-a")
    assert use(registry, invited(registry), "key-new") == "plant-a"


def test_revoking_a_plant_that_is_not_there_names_those_that_are(registry: PlantRegistry) -> None:
    invited(registry)
    with pytest.raises(EnrolmentError, match="plant-a"):
        revoke(registry, "plant-z")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("2w", 1209600)])
def test_lengths_of_time_are_read_as_written(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1.5h", "0s", "99999w", "1 h", "²h"])
def test_anything_else_is_no_length_of_time(text: str) -> None:
    with pytest.raises(SettingsError, match="length of time"):
        duration(text)
