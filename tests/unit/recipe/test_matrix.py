"""A recipe with a matrix makes one image for each combination of values."""

import pytest
from particle_os.errors import InvalidDocument, UsageError
from particle_os.recipe import loading

RECIPE = """\
name: web-${{flavour}}-${{size}}
base-image: mmdebstrap:${{suite}}
variables:
  flavour: small
  size: 1
  debug: false
  suite: {{type: string, default: trixie, description: The suite of Debian.}}
  free: {{type: string}}
  many: [a]
matrix:
{matrix}
stages:
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv]}}
  - {{type: run, command: [echo, "is ${{debug}} ${{free}}"]}}
  - {{type: qemu}}
"""


@pytest.fixture
def recipe(tmp_path):
    def write(matrix):
        path = tmp_path / "r.yml"
        text = "".join(f"  {line}\n" for line in matrix.splitlines())
        path.write_text(RECIPE.format(matrix=text) if matrix else RECIPE.replace("matrix:\n", ""))
        return path

    return write


def images(path, **given):
    return [" ".join(each.values()) for each in loading.images(path, given)]


def problems(path, **given):
    with pytest.raises(InvalidDocument) as caught:
        loading.load(path, given)
    return [(p.line, p.code, p.message, p.hint) for p in caught.value.problems]


def test_each_combination_is_an_image(recipe):
    path = recipe("flavour: [small, large]\nsize: [1, 2]\ndebug: [true]")
    assert images(path) == ["small 1 true", "small 2 true", "large 1 true", "large 2 true"]
    loaded = [loading.load(path, {"free": "x", **v}).recipe for v in loading.images(path)]
    assert [r.name for r in loaded] == ["web-small-1", "web-small-2", "web-large-1", "web-large-2"]
    assert {stage.command for r in loaded for stage in r.stages[1:2]} == {("echo", "is true x")}


def test_a_recipe_without_a_matrix_is_one_image(tmp_path):
    (tmp_path / "r.yml").write_text("name: r\nstages: [{type: qemu}]\n")
    assert loading.images(tmp_path / "r.yml") == ({},)


def test_combinations_are_left_out_and_added(recipe):
    path = recipe(
        "flavour: [small, large]\nsize: [1, 2]\n"
        "exclude: [{flavour: large, size: 2}]\n"
        "include: [{flavour: huge, suite: bookworm}]"
    )
    assert images(path) == [
        "small 1 trixie", "small 2 trixie", "large 1 trixie", "huge 1 bookworm",
    ]  # fmt: skip


def test_given_values_choose_images(recipe):
    path = recipe("flavour: [small, large]\nsize: [1, 2]")
    assert images(path, size="2") == ["2 small", "2 large"]
    with pytest.raises(UsageError, match="no image with size=3") as caught:
        images(path, size="3")
    assert "flavour=small size=1; flavour=small size=2" in caught.value.hint


def test_a_command_for_one_image_needs_a_choice(recipe):
    path = recipe("flavour: [small, large]")
    with pytest.raises(UsageError, match="makes 2 images") as caught:
        loading.load(path, {"free": "x"})
    assert caught.value.hint == "Choose it, for example with --set flavour=small."
    assert loading.load(path, {"free": "x", "flavour": "large"}).recipe.name == "web-large-1"


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ("flavor: [a]", (11, "unknown-variable", "matrix: there is no variable 'flavor'",
                         "did you mean 'flavour'?")),
        ("xyz: [a]", (11, "unknown-variable", "matrix: there is no variable 'xyz'",
                      "declare it with a default in 'variables'")),
        ("flavour: a", (11, "bad-type", "matrix: expected a list of values for 'flavour'",
                        "write 'flavour: [one, other]'")),
        ("flavour: []", (11, "bad-type", "matrix: expected a list of values for 'flavour'",
                         "write 'flavour: [one, other]'")),
        ("flavour: [1.5]", (11, "bad-type",
                            "matrix: expected a string, an integer, true or false for 'flavour'",
                            None)),
        ("flavour: [a, b, a]", (11, "bad-value", "matrix: 'a' is there twice for 'flavour'", None)),
        ("flavour: [a]\nexclude: [{flavour: b}]",
         (12, "bad-value", "exclude: no combination has these values", None)),
        ("flavour: [a]\nexclude: [{size: 1}]",
         (12, "unknown-key", "exclude: the matrix has no variable 'size'", "allowed: flavour")),
        ("flavour: [a]\nexclude: [{flavour: a}]",
         (11, "bad-value", "matrix: no combination is left", None)),
        ("flavour: [a]\nexclude: x",
         (12, "bad-type", "matrix: expected a list of mappings for 'exclude'", None)),
        ("flavour: [a]\ninclude: [x]",
         (12, "bad-type", "include: expected a mapping from variables to values", None)),
        ("flavour: [a]\ninclude: [{flavour: a}]",
         (12, "bad-value", "include: the matrix has this image already", None)),
        ("flavour: [a]\ninclude: [{free: a}]",
         (11, "missing-value", "include: the variable 'free' has no value here",
          "give it one, or a default")),
        ("many: [[a]]", (11, "bad-type",
                         "matrix: expected a string, an integer, true or false for 'many'", None)),
    ],
)  # fmt: skip
def test_each_mistake_has_its_place_and_advice(recipe, matrix, problem):
    (found,) = problems(recipe(matrix), free="x")
    assert found[:3] == problem[:3]
    assert problem[3] is None or found[3] == problem[3]


@pytest.mark.parametrize("matrix", ["x", "[a]", "{}"])
def test_a_matrix_is_a_mapping(tmp_path, matrix):
    (tmp_path / "r.yml").write_text(f"name: r\nmatrix: {matrix}\nstages: [{{type: qemu}}]\n")
    found = problems(tmp_path / "r.yml")
    assert [each[:2] for each in found][:1] == [(2, "bad-type")]


def test_a_value_of_another_type_than_the_variable_is_an_error(recipe):
    path = recipe("size: [1, big]")
    found = problems(path, free="x", size="big")
    assert "expected an integer, found 'big'" in found[0][2]


def test_too_many_images_are_refused_at_once(recipe):
    many = ", ".join(map(str, range(1, 1000)))
    (problem,) = problems(
        recipe(f"size: [{many}]\nflavour: [{many}]\ndebug: [true, false]"), free="x"
    )
    assert problem[1:3] == (
        "bad-value",
        "matrix: 1996002 images are too many; at most 256 are possible",
    )
