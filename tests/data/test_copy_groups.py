import numpy as np

from automl.data.copy_groups import CopyGroups


def test_what_is_joined_belongs_together_at_its_weakest():
    groups = CopyGroups(6)
    for a, b, similarity in ((4, 5, 0.9), (1, 3, 0.95), (3, 5, 0.85)):
        groups.join_rows(a, b, similarity)
    assert groups.list_groups() == [([1, 3, 4, 5], 0.85)]
    assert not groups.are_apart(1, 4)
    assert groups.are_apart(np.array([0, 1, 4]), np.array([1, 5, 2])).tolist() == [True, False, True]


def test_alone_is_no_group():
    assert CopyGroups(3).list_groups() == []
