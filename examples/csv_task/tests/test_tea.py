"""The file is read as it is meant."""

from xpo_bench_tea import Tea

from xpo_bench import ModelSpec, Pair


def test_the_majority_is_chosen():
    data = Tea().data(0, ModelSpec())
    assert len(data.train) == data.rows == 9
    assert data.train[1] == Pair("breakfast", "coffee", "black tea", p_chosen=0.55)


def test_pairs_that_were_seldom_asked_are_left_out_and_counted():
    data = Tea(least=21).data(0, ModelSpec())
    assert (data.train, dict(data.dropped)) == ((), {"asked too seldom": 9})
