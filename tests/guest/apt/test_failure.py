import pytest
from particle_agent.apt.failure import apt_failure
from particle_agent.errors import NetworkError

M = "http://mirror.example.org/debian"
UNSIGNED = f"E: The repository '{M} s InRelease' is not signed."
KEY = "NO_PUBKEY 607A522D29CBD000"
# What apt 2.6 and apt 3 print, a part of the headline, and a part of the hint.
PRINTED = [
    ([f"E: Failed to fetch {M}/dists/s/InRelease  401  Unauthorized [IP: 192.0.2.1 80]", UNSIGNED],
     f"{M}/dists/s/InRelease asks for a password", "'credentials'"),
    ([f"E: Failed to fetch {M}/dists/s/InRelease  403  Forbidden [IP: 192.0.2.1 80]", UNSIGNED],
     "refuses access (403)", "Check the URL"),
    ([f"Err:2 {M} t Release", "  404  File not found [IP: 192.0.2.1 80]",
      f"E: The repository '{M} t Release' does not have a Release file."],
     f"{M} t: there is no such suite", "dists/SUITE"),
    ([f"E: Release file for {M}/dists/s/InRelease is expired (invalid since 3d 1h). Updates for "
      "this repository will not be applied."], "has expired", "'snapshot'"),
    ([f"E: Release file for {M}/dists/s/InRelease is not valid yet (invalid for another 2d)."],
     "from the future", "clock"),
    ([f"W: GPG error: {M} s InRelease: The following signatures couldn't be verified because the "
      f"public key is not available: {KEY}", UNSIGNED], "no key 607A522D29CBD000", "'key-file'"),
    ([f"W: OpenPGP signature verification failed: {M} s InRelease: Sub-process /usr/bin/sqv "
      "returned an error code (1), error message is: Missing key 4CB50190207B4758, which is needed "
      "to verify signature.", UNSIGNED], "no key 4CB50190207B4758", "'key-file'"),
    ([f"W: GPG error: {M} s InRelease: The following signatures were invalid: EXPKEYSIG 60 a",
      UNSIGNED], "the key that signs the repository has expired", "'key-file'"),
    ([f"W: GPG error: {M} s InRelease: The following signatures were invalid: BADSIG 60 a",
      UNSIGNED], "the signature of the repository is wrong", "'key-file'"),
    ([UNSIGNED], "the repository is not signed", "Use a signed repository"),
    ([f"E: Failed to fetch {M}/pool/a_1_amd64.deb  404  Not Found [IP: 192.0.2.1 80]"],
     "no longer has", "'--refresh'"),
    ([f"E: Failed to fetch {M}/dists/s/main/Packages  404  Not Found [IP: 192.0.2.1 80]"],
     "does not exist (404)", "components"),
    ([f"E: Failed to fetch {M}/pool/a_1_amd64.deb  File has unexpected size (1 != 2)."],
     "than its index describes", "another mirror"),
    (["E: Packages were downgraded and -y was used without --allow-downgrades."],
     "older versions", "'allow-downgrades: true'"),
    (["E: Unable to locate package firmware-iwlwifi"], "firmware-iwlwifi", "non-free-firmware"),
    (["E: Package 'intel-microcode' has no installation candidate"], "no installation",
     "non-free-firmware"),
    (["E: Unable to locate package nginxx"], "nginxx", "apt-cache policy"),
    (["E: Something else"], "apt-get: Something else", None),
]  # fmt: skip


@pytest.mark.parametrize(("tail", "headline", "hint"), PRINTED)
def test_each_cause_has_its_headline_and_what_to_do(tail, headline, hint):
    error = apt_failure(["Reading package lists...", *tail])
    assert headline in error.message
    assert (error.hint is None) if hint is None else hint in error.hint
    assert not isinstance(error, NetworkError)
    assert error.tail[-1] == tail[-1]


def test_a_mirror_that_is_away_is_no_error_of_the_recipe():
    tail = [f"E: Failed to fetch {M}/dists/s/InRelease  Could not connect to mirror.example.org:80"]
    error = apt_failure(tail)
    assert isinstance(error, NetworkError)
    assert "mirror.example.org cannot be reached" in error.message


def test_without_a_complaint_there_is_no_error():
    assert apt_failure(["Reading package lists...", "W: something"]) is None
