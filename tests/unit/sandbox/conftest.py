import pytest
from particle_os.sandbox.template import load_template

TEMPLATE = """\
name: small
suite: trixie
packages: [base-files, busybox-static]
"""


@pytest.fixture
def template(tmp_path):
    (tmp_path / "small.yml").write_text(TEMPLATE)
    return load_template(str(tmp_path / "small.yml"))
