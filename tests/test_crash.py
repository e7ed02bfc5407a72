"The short version of `make soak`: a few runs that are broken all the time and end as if nothing had happened, and the controls that must not."
import pytest
from crash import page, run


@pytest.mark.parametrize('seed', [1, 5])
def test_broken_again_and_again_it_ends_as_if_nothing_had_happened(tmp_path, seed):
    done = run(seed, tmp_path, kills=5)
    assert done.bad == [] and done.kills >= 5 and sum(done.faults.values()) > 3 and done.orders > 5


@pytest.mark.parametrize('control', ['no look-up', 'no fence'])
def test_without_what_makes_it_safe_it_goes_bad_so_the_proof_has_teeth(tmp_path, control):
    for seed in range(5, 15):
        (tmp_path / str(seed)).mkdir()
        done = run(seed, tmp_path / str(seed), kills=3, control=control)
        if done.bad: break
    assert done.bad
    assert f'| {control} | 1 | 1 |' in page([], [done])
