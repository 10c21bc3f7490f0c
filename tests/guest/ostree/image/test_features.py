"""Settings that an older OSTree does not know are refused, with the reason."""

import pytest
from particle_agent.errors import StageError
from particle_agent.ostree.image import features
from particle_agent.ostree.image.choices import RootSettings

BOOKWORM = "libostree:\n Version: '2022.7'\n Git: x\n Features:\n  - libcurl\n  - gpgme\n"
TRIXIE = "libostree:\n Version: '2025.2'\n Features:\n  - ex-fsverity\n  - initial-var\n"
FORKY = "libostree:\n Version: '2026.4'\n Features:\n  - composefs\n  - initial-var\n"
TRANSIENT, COMPOSEFS = RootSettings(etc="transient"), RootSettings(composefs=True)


@pytest.mark.parametrize(
    ("told", "settings"),
    [(TRIXIE, TRANSIENT), (FORKY, TRANSIENT), (FORKY, COMPOSEFS), (BOOKWORM, RootSettings())],
)
def test_settings_that_ostree_knows(target, told, settings):
    target.captured["ostree"] = told
    assert features.check(target, settings) is None


@pytest.mark.parametrize(
    ("told", "settings", "message"),
    [
        (BOOKWORM, TRANSIENT, "etc: the image's ostree 2022.7 cannot forget"),
        (BOOKWORM.replace("2022.7", "2023.6"), TRANSIENT, "etc: the image's ostree 2023.6"),
        (BOOKWORM, COMPOSEFS, "composefs: the image's ostree 2022.7 is built without composefs"),
        (TRIXIE, COMPOSEFS, "composefs: the image's ostree 2025.2 is built without composefs"),
        ("", TRANSIENT, "etc: the image's ostree 0.0"),
    ],
)
def test_settings_that_ostree_does_not_know(target, told, settings, message):
    target.captured["ostree"] = told
    with pytest.raises(StageError, match=message) as raised:
        features.check(target, settings)
    assert "Debian 1" in raised.value.hint


@pytest.mark.parametrize(
    ("settings", "text", "modules"),
    [
        (RootSettings(), "", ()),
        (TRANSIENT, "[etc]\ntransient = true\n", ("overlay",)),
        (COMPOSEFS, "[composefs]\nenabled = yes\n", ("overlay", "erofs", "loop")),
    ],
)
def test_the_settings_as_ostree_reads_them(settings, text, modules):
    assert settings.text == f"[sysroot]\nreadonly = true\n{text}"
    assert settings.modules == modules
