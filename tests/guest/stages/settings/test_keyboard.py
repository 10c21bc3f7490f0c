import os
import subprocess

import pytest
from particle_agent.errors import StageError
from particle_agent.stages.settings.keyboard import (
    CONFIG,
    KEYMAPS,
    VCONSOLE,
    VCONSOLE_SETUP,
    Keyboard,
)

LIST = """\
! model
  pc105           Generic 105-key PC
  jp106           Japanese 106-key

! layout
  us              English (US)
  de              German
  ru              Russian

! variant
  nodeadkeys      de: German (no dead keys)
  phonetic        ru: Russian (phonetic)

! option
  grp                  Switching to another layout
  grp:alt_shift_toggle Alt+Shift
  compose:caps         Caps Lock
"""


@pytest.fixture
def debian(target):
    target.write("/usr/share/X11/xkb/rules/base.lst", LIST)
    return target


def settings(target):
    """The variables of /etc/default/keyboard, as the shell reads them."""
    script = f'. {target.path(CONFIG)}; echo "$XKBMODEL|$XKBLAYOUT|$XKBVARIANT|$XKBOPTIONS"'
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout.strip()


def test_everything_that_was_asked_for_is_in_the_file(debian):
    Keyboard(
        layout="us,ru",
        variant=",phonetic",
        model="jp106",
        options=("grp:alt_shift_toggle", "compose:caps"),
    ).run(debian)
    assert settings(debian) == "jp106|us,ru|,phonetic|grp:alt_shift_toggle,compose:caps"
    assert os.readlink(debian.root / VCONSOLE.strip("/")) == "default/keyboard"


def test_the_console_gets_the_new_layout(debian):
    debian.write("/usr/bin/setupcon", "")
    debian.when("setupcon", lambda c: debian.write("/seen", settings(debian)))
    Keyboard(layout="de").run(debian)
    assert debian.read("/seen").split("|")[1] == "de"
    assert debian.report.notes == []


def test_a_console_that_nothing_sets_up_is_noted(debian):
    Keyboard(layout="de").run(debian)
    assert debian.commands == []
    assert "console-setup" in debian.report.notes[0]


@pytest.mark.parametrize(
    ("options", "keymap"),
    [({"layout": "de"}, "de"), ({"layout": "de", "variant": "nodeadkeys"}, "de-nodeadkeys")],
)
def test_where_systemd_sets_the_console_it_gets_its_keymap(debian, options, keymap):
    debian.write(VCONSOLE_SETUP, "")
    debian.write(KEYMAPS, "# x\nde\tde\tpc105\t-\tt:x\nde-nodeadkeys de pc105 nodeadkeys t:x\n")
    debian.write(VCONSOLE, "KEYMAP=us\n")
    Keyboard(**options).run(debian)
    assert f'KEYMAP="{keymap}"\n' in debian.read(VCONSOLE)


def test_without_lists_the_names_are_believed(target):
    Keyboard(layout="xx").run(target)
    assert settings(target).split("|")[1] == "xx"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"layout": "dee"}, "layout named dee", "de?"),
        ({"layout": "us,dee"}, "layout named dee", "de?"),
        ({"layout": "de", "variant": "nodeadkey"}, "variant of de named nodeadkey", "nodeadkeys?"),
        ({"layout": "us", "variant": "nodeadkeys"}, "variant of us named nodeadkeys", "7"),
        ({"layout": "us,ru", "variant": "phonetic"}, "variant of us named phonetic", "7"),
        ({"layout": "de", "model": "pc1005"}, "model named pc1005", "pc105?"),
        ({"layout": "de", "options": ("compose:cap",)}, "option named compose:cap", "compose:caps"),
    ],
)
def test_a_name_that_xkb_does_not_know_is_reported_with_its_neighbours(
    debian, options, message, hint
):
    with pytest.raises(StageError, match=message) as raised:
        Keyboard(**options).run(debian)
    assert hint in raised.value.hint
    assert not debian.exists(CONFIG)


def test_more_variants_than_layouts_are_refused():
    with pytest.raises(ValueError, match="more variants than layouts"):
        Keyboard(layout="us", variant=",phonetic")
