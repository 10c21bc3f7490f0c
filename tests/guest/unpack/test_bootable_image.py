"""Container images that machines boot, such as those of bootc, as bases."""

import os

import pytest
from particle_agent.unpack.bootable_image import notes
from particle_agent.unpack.unpack import accept_base

K = "6.12.57+deb13-cloud-amd64"


@pytest.fixture
def image(tmp_path):
    """A function that makes the tree of such an image, with changes, and returns its root."""

    def make(*, links=(), **files):
        root = tmp_path / "root"
        known = {
            f"usr/lib/modules/{K}/vmlinuz": "kernel",
            f"usr/lib/modules/{K}/initramfs.img": "initramfs of dracut",
            f"usr/lib/modules/{K}/modules.dep": "",
            "usr/bin/apt-get": "",
            "usr/bin/dpkg": "",
            "etc/os-release": "ID=debian\n",
            "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "var/lib/dpkg/status": "",
        }
        for name, text in {**known, **files}.items():
            if text is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        (root / "boot").mkdir(exist_ok=True)
        (root / "var/tmp").mkdir(parents=True)
        for name, to in dict(links).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(to)
        return root

    return make


def test_the_kernel_is_put_where_debian_has_it(image):
    root = image()
    (note,) = notes(root)
    assert note.endswith(f"put into /boot: {K}")
    assert sorted(os.listdir(root / "boot")) == [f"initrd.img-{K}", f"vmlinuz-{K}"]
    assert (root / f"boot/vmlinuz-{K}").read_text() == "kernel"
    assert (root / f"usr/lib/modules/{K}/vmlinuz").exists(), "it may belong to a package"
    assert list(notes(root)) == []


def test_a_kernel_in_boot_stays_the_only_one(image):
    root = image(**{"boot/vmlinuz-6.1": "another kernel"})
    assert list(notes(root)) == []
    assert os.listdir(root / "boot") == ["vmlinuz-6.1"]


@pytest.mark.parametrize("name", ["--help", "-k", ".hidden", "a b", "a\nb"])
def test_a_directory_that_is_no_version_is_left_alone(image, name):
    root = image(**{f"usr/lib/modules/{K}/vmlinuz": None, f"usr/lib/modules/{name}/vmlinuz": "x"})
    assert list(notes(root)) == []
    assert os.listdir(root / "boot") == []


def test_the_directories_of_links_are_made(image):
    links = {"home": "/var/home", "root": "var/roothome", "usr/local": "../var/usrlocal"}
    root = image(links=links, **{"srv/file": ""})
    assert "made: /home, /root, /usr/local" in next(iter(notes(root)))
    assert (root / "var/home").is_dir()
    assert (root / "var/roothome").stat().st_mode & 0o777 == 0o700
    assert (root / "var/usrlocal").is_dir()


def test_no_link_leads_out_of_the_base(image, tmp_path):
    outside = tmp_path / "outside"
    links = {
        "home": f"{outside}/home",
        "opt": "../../../outside/opt",
        f"usr/lib/modules/{K}/vmlinuz": f"{outside}/secret",
    }
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = image(links=links, **{f"usr/lib/modules/{K}/vmlinuz": None})
    list(notes(root))
    assert sorted(os.listdir(outside)) == ["secret"]
    assert os.listdir(root / "boot") == []


def test_a_boot_that_is_a_link_stays_inside(image, tmp_path):
    root = image()
    (root / "boot").rmdir()
    (root / "boot").symlink_to(tmp_path)
    list(notes(root))
    assert os.listdir(tmp_path) == ["root"]


def test_usr_etc_becomes_etc(image):
    root = image(
        **{
            "etc/passwd": None,
            "etc/os-release": None,
            "etc/resolv.conf": "of a runtime",
            "usr/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "usr/etc/os-release": "ID=debian\n",
        }
    )
    assert any("becomes /etc" in note for note in accept_base(root))
    assert sorted(os.listdir(root / "etc")) == ["os-release", "passwd"]
    assert not (root / "usr/etc").exists()


def test_usr_etc_beside_a_whole_etc_is_left_to_the_lints(image):
    root = image(**{"usr/etc/passwd": "other"})
    list(notes(root))
    assert (root / "usr/etc/passwd").read_text() == "other"


def test_an_empty_var_gets_the_directories_of_debian(image):
    root = image()
    (root / "var/tmp").rmdir()
    assert "/var of the base is empty" in next(iter(notes(root)))
    assert (root / "var/tmp").stat().st_mode & 0o7777 == 0o1777
    assert os.readlink(root / "var/run") == "/run"
    assert (root / "var/log").is_dir()


@pytest.mark.parametrize("links", [{}, {"var/lib/dpkg": "/nowhere"}])
def test_the_database_of_dpkg_is_found_in_usr(image, links):
    root = image(
        links=links,
        **{"var/lib/dpkg/status": None, "usr/share/dpkg/database/status": "Package: dpkg\n"},
    )
    list(notes(root))
    assert (root / "var/lib/dpkg/status").read_text() == "Package: dpkg\n"


def test_a_missing_database_of_dpkg_is_noted(image):
    root = image(**{"var/lib/dpkg/status": None})
    assert "no database of dpkg" in list(notes(root))[-1]


def test_the_usual_base_is_not_changed(image):
    root = image(**{f"usr/lib/modules/{K}/vmlinuz": None, "home/ann/x": "", "root/.profile": ""})
    before = sorted(root.rglob("*"))
    assert list(notes(root)) == []
    assert sorted(root.rglob("*")) == before
