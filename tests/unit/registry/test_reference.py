"""References to images in registries: what is read, and what is refused."""

import pytest
from particle_os.errors import UsageError
from particle_os.registry.reference import parse_reference

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("docker://registry.example.org/a", ("registry.example.org", "a", "latest", None)),
        ("docker://localhost/a/b:1.2", ("localhost", "a/b", "1.2", None)),
        ("docker://127.0.0.1:5000/a/b-c:x", ("127.0.0.1:5000", "a/b-c", "x", None)),
        ("docker://[::1]:5000/a", ("[::1]:5000", "a", "latest", None)),
        (f"docker://registry.example.org/a@{DIGEST}", ("registry.example.org", "a", None, DIGEST)),
    ],
)
def test_a_reference_is_read(text, parts):
    found = parse_reference(text)
    assert (found.host, found.repository, found.tag, found.digest) == parts
    assert found == parse_reference(str(found))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("debian", "does not begin"),
        ("docker://debian", "does not begin"),
        ("docker://user/name", "does not begin"),
        ("oci://registry.example.org/a", "does not begin"),
        ("docker://me:secret@registry.example.org/a", "does not begin"),
        ("docker://registry.example.org/", "repository"),
        ("docker://registry.example.org/A", "repository"),
        ("docker://registry.example.org/../x", "repository"),
        ("docker://registry.example.org/a:", "tag"),
        ("docker://registry.example.org/a:b/c", "tag"),
        ("docker://registry.example.org/a:x?y", "tag"),
        ("docker://registry.example.org/a@sha256:ab", "digest"),
        (f"docker://registry.example.org/a:1@{DIGEST}x", "digest"),
        ("", "does not begin"),
        ("docker://", "does not begin"),
    ],
)
def test_another_reference_is_refused_with_an_example(text, why):
    with pytest.raises(UsageError, match=why) as caught:
        parse_reference(text)
    assert "docker://registry.example.org/" in caught.value.hint
