"""The choices of stages lie beside the image."""

from particle_agent.system.chosen import choose, chosen, forget


def test_choices_are_kept_by_kind_and_can_be_taken_back(target):
    assert chosen(target, "mode") == frozenset()
    choose(target, "mode", ["home/a"])
    choose(target, "mode", ["home/b", "home/a"])
    choose(target, "owner", ["home/c"])
    assert chosen(target, "mode") == {"home/a", "home/b"}
    forget(target, "mode", ["home/b", "home/c"])
    assert chosen(target, "mode") == {"home/a"}
    assert chosen(target, "owner") == {"home/c"}


def test_the_image_has_nothing_of_them(target):
    choose(target, "disabled", ["a.service"])
    assert list(target.root.rglob("*")) == []


def test_nothing_is_written_without_a_choice(target):
    choose(target, "disabled", [])
    forget(target, "disabled", ["a.service"])
    assert [path.name for path in target.root.parent.iterdir()] == [target.root.name]
