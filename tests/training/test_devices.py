"""Process-wide settings are applied within a block and restored after it."""

import torch

from tlopt.training.devices import configured_process


def test_the_number_of_threads_is_changed_within_a_block_alone() -> None:
    torch.set_num_threads(2)

    with configured_process(1):
        inside = torch.get_num_threads()

    assert (inside, torch.get_num_threads()) == (1, 2)
    torch.set_num_threads(1)  # as the other tests of this folder have it
