import pytest

from ..written import MINIMAL, problems


@pytest.mark.parametrize(
    ("disk", "boot_test", "errors"),
    [
        ("size: 1X", "firmware: [uefi]", [(4, 11), (5, 24)]),
        ("sise: 1G", "firmware: [uefi, bois, uefi]", [(4, 5), (5, 24), (5, 30), (5, 36)]),
        ("size: 1G", "firmware: [uefi], cheks: []", [(5, 24), (5, 31)]),
        ("size: 1G", "firmware: uefi", [(5, 23)]),
        # A mistake in the options of the boot loader leaves its firmwares unknown.
        ("boot-loader: grbu", "firmware: [uefi]", [(4, 18)]),
        ("unified-kernel-image: true", "firmware: [uefi]", [(4, 27)]),
    ],
)  # fmt: skip
def test_other_mistakes_hide_no_firmware_that_cannot_be(tmp_path, disk, boot_test, errors):
    text = f"{MINIMAL}    {disk}\nboot-test: {{{boot_test}}}\n"
    assert [(p.line, p.column) for p in problems(tmp_path, text)] == errors
