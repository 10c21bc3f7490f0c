import re
from pathlib import Path

import pytest
from particle_os.report.benchmark import COLUMNS, Benchmark, BuildTime, Figures

PAGE = Path(__file__).parents[3] / "docs/performance.md"
CELL = re.compile(r"(?<!\\)\|")


def figures(accelerator="tcg", cold=60.0, changed=12.5):
    def build(seconds):
        return BuildTime(seconds=seconds, download_seconds=9, download_bytes=90_000_000)

    return Figures(
        accelerator=accelerator, first_build=build(200.0), helper_seconds=20.0, base_seconds=90.0,
        cold_build=build(cold), changed_stage=build(changed), boot_test_seconds=14.0,
    )  # fmt: skip


def benchmark(*found, **changes):
    options = {
        "particle_os": "1", "recipe": "minimal-test", "processor": "Example CPU", "processors": 2,
        "qemu": "QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-0+deb13u1)", "missing": {},
    }  # fmt: skip
    return Benchmark(**{**options, **changes}, figures=found)


def cells(row):
    return [cell.strip() for cell in CELL.split(row)[1:-1]]


def test_each_accelerator_has_a_row_with_a_cell_for_each_column():
    rows = benchmark(figures("kvm"), figures("tcg")).rows()
    assert [cells(row)[:3] for row in rows] == [
        ["Example CPU, 2 processors", "10.0.3", name] for name in ("KVM", "TCG")
    ]
    assert cells(rows[0])[3:] == ["20.0", "90.0", "200.0", "9", "60.0", "12.5", "14.0", "4.8"]
    assert {len(cells(row)) for row in rows} == {len(COLUMNS)}


@pytest.mark.parametrize("name", ["a|b", "a`b", "[a](b)", "<b>", "*a*", "a_b_", "a\\|b"])
def test_no_name_of_a_processor_is_markup(name):
    row = benchmark(figures(), processor=name).rows()[0]
    assert len(cells(row)) == len(COLUMNS)
    shown = cells(row)[0].removesuffix(", 2 processors")
    assert re.sub(r"\\(.)", r"\1", shown) == name
    assert not re.search(r"(?<!\\)[`<*\[]", shown.replace("\\\\", ""))


def test_one_processor_is_one():
    assert cells(benchmark(figures(), processors=1).rows()[0])[0] == "Example CPU, 1 processor"


def test_a_version_without_a_number_is_shown_as_it_is():
    assert cells(benchmark(figures(), qemu="of today").rows()[0])[1] == "of today"


def test_the_lines_end_with_a_table_and_say_what_is_missing():
    lines = [*benchmark(figures(), missing={"kvm": "there is no /dev/kvm"}).lines()]
    assert "figures with KVM are missing: there is no /dev/kvm" in lines
    assert "  changed stage    12.5  4.8 times as fast" in lines
    assert cells(lines[-3]) == [*COLUMNS]
    assert {len(cells(line)) for line in lines[-3:]} == {len(COLUMNS)}
    assert "missing" not in " ".join(benchmark(figures("kvm"), figures()).lines())


def test_a_build_that_takes_no_time_divides_by_no_zero():
    assert figures(changed=0.0).ratio > 1


def test_the_page_has_the_table_of_the_command():
    lines = PAGE.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if cells(line) == [*COLUMNS])
    rows = [cells(line) for line in lines[place + 2 :]]
    rows = rows[: rows.index([])]
    assert rows
    for row in rows:
        assert len(row) == len(COLUMNS) and row[2] in ("KVM", "TCG")
        assert all(re.fullmatch(r"\d+(\.\d)?", cell) for cell in row[3:])
