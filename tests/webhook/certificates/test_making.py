from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from nodecache.webhook.certificates.making import make_data
from nodecache.webhook.certificates.model import Held
from nodecache.webhook.certificates.planning import BACKDATE_S, Step, plan_secret
from nodecache.webhook.certificates.reading import read_bundle, read_held
from tests.webhook.certificates.lives import BEGIN, DAY, SETTINGS

NAME = "nodecache-webhook.kube-system.svc"


def start(now: float = BEGIN) -> dict[str, bytes]:
    return make_data(Step.START, Held(), now, SETTINGS)


def go_on(data: dict[str, bytes], step: Step, now: float = BEGIN) -> dict[str, bytes]:
    return data | make_data(step, read_held(data), now, SETTINGS)


def is_verified(chain: bytes, bundle: bytes, name: str = NAME, now: float = BEGIN) -> bool:
    """Judges as API servers do: by names in subjectAltName only, and by each CA of the bundle."""
    policy = PolicyBuilder().store(Store(x509.load_pem_x509_certificates(bundle)))
    verifier = policy.time(datetime.fromtimestamp(now, UTC)).build_server_verifier(
        x509.DNSName(name)
    )
    try:
        verifier.verify(x509.load_pem_x509_certificate(chain), [])
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(SETTINGS.names))
def test_a_first_pair_is_verified_by_each_of_its_names(name: str) -> None:
    data = start()
    assert is_verified(data["tls.crt"], data["ca.crt"], name)
    assert not is_verified(data["tls.crt"], data["ca.crt"], "other.kube-system.svc")


def test_the_names_are_those_that_api_servers_and_people_use() -> None:
    assert SETTINGS.names == {
        "nodecache-webhook.kube-system",
        "nodecache-webhook.kube-system.svc",
        "nodecache-webhook.kube-system.svc.cluster.local",
    }


def test_openssl_verifies_it_at_its_strictest(tmp_path: Path) -> None:
    data = go_on(start(), Step.ADD_CA)
    for name, octets in data.items():
        (tmp_path / name).write_bytes(octets)
    options = f"-x509_strict -purpose sslserver -attime {BEGIN:.0f} -verify_hostname {NAME}"
    command = f"openssl verify {options} -CAfile ca.crt tls.crt"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)


def test_a_pair_is_valid_from_some_minutes_before_until_its_life_is_over() -> None:
    data = start()
    (ca,) = read_bundle(data["ca.crt"])
    leaf = read_held(data).leaf
    assert leaf is not None
    assert (leaf.since, leaf.until) == (BEGIN - BACKDATE_S, BEGIN + SETTINGS.leaf_life_s)
    assert (ca.since, ca.until) == (BEGIN - BACKDATE_S, BEGIN + SETTINGS.ca_life_s)


def test_no_certificate_outlives_its_ca() -> None:
    data = start()
    later = BEGIN + SETTINGS.ca_life_s - DAY
    leaf = read_held(go_on(data, Step.RENEW_LEAF, later)).leaf
    assert leaf is not None
    assert leaf.until == BEGIN + SETTINGS.ca_life_s


def test_each_step_leads_to_a_secret_that_needs_no_more() -> None:
    data = start()
    assert plan_secret(read_held(data), False, BEGIN, SETTINGS) is Step.NOTHING
    data = go_on(data, Step.ADD_CA)
    assert plan_secret(read_held(data), False, BEGIN, SETTINGS) is Step.NOTHING
    data = go_on(data, Step.RENEW_LEAF)
    assert plan_secret(read_held(data), True, BEGIN, SETTINGS) is Step.NOTHING


def test_a_ca_is_exchanged_so_that_either_certificate_is_verified_on_the_way() -> None:
    before = start()
    added = go_on(before, Step.ADD_CA)
    assert added["tls.crt"] == before["tls.crt"]
    assert added["ca.key"] != before["ca.key"]
    assert is_verified(before["tls.crt"], added["ca.crt"])
    changed = go_on(added, Step.RENEW_LEAF)
    assert changed["ca.crt"] == added["ca.crt"]
    assert is_verified(before["tls.crt"], changed["ca.crt"])
    assert is_verified(changed["tls.crt"], changed["ca.crt"])
    assert not is_verified(changed["tls.crt"], before["ca.crt"])


def test_a_ca_that_has_ended_leaves_the_secret_with_the_next_certificate() -> None:
    data = go_on(start(), Step.ADD_CA, BEGIN + 244 * DAY)
    after = go_on(data, Step.RENEW_LEAF, BEGIN + SETTINGS.ca_life_s)
    assert len(read_bundle(data["ca.crt"])) == 2
    assert read_bundle(after["ca.crt"]) == read_bundle(data["ca.crt"])[:1]


def test_cas_never_pile_up_and_that_of_the_certificate_in_use_stays() -> None:
    data = start()
    (first,) = read_bundle(data["ca.crt"])
    for _ in range(12):
        data = go_on(data, Step.ADD_CA)
    held = read_held(data)
    assert len(held.authorities) == 8
    assert first in held.authorities
    assert held.leaf is not None
    assert held.leaf.issuer == first.fingerprint


def test_starting_again_keeps_cas_whose_certificates_may_still_be_shown() -> None:
    data = start()
    held = replace(read_held(data), signer=None, signer_key_pem=b"", leaf=None)
    again = make_data(Step.START, held, BEGIN, SETTINGS)
    assert is_verified(data["tls.crt"], again["ca.crt"])
    assert is_verified(again["tls.crt"], again["ca.crt"])


def test_the_ca_may_sign_servers_only_below_itself() -> None:
    ca = x509.load_pem_x509_certificate(start()["ca.crt"])
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )


def test_the_certificate_is_for_servers_and_names_the_key_of_its_ca() -> None:
    data = start()
    ca = x509.load_pem_x509_certificate(data["ca.crt"]).extensions
    leaf = x509.load_pem_x509_certificate(data["tls.crt"]).extensions
    usage = leaf.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    own = ca.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = leaf.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == own.digest


def test_two_cas_have_two_names() -> None:
    first, second = (x509.load_pem_x509_certificate(start()["ca.crt"]) for _ in range(2))
    assert first.subject != second.subject


def test_keys_are_new_each_time_and_fit() -> None:
    keys = set()
    data = start()
    for _ in range(3):
        data = go_on(data, Step.RENEW_LEAF)
        keys.add(data["tls.key"])
        key = load_pem_private_key(data["tls.key"], None)
        certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        assert certificate.public_key() == key.public_key()
    assert len(keys) == 3


def test_a_long_name_of_a_service_fits_the_common_name() -> None:
    settings = replace(SETTINGS, service="s" * 63, namespace="n" * 63)
    data = make_data(Step.START, Held(), BEGIN, settings)
    leaf = read_held(data).leaf
    assert leaf is not None
    assert leaf.names == settings.names
