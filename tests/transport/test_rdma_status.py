import pytest

from jscale.transport.rdma_status import RETRIES, ack_timeout, explain


@pytest.mark.parametrize("retry_s", [0.01, 0.5, 1, 2, 2.5, 60])
def test_all_retries_together_take_no_longer_than_asked_and_over_half_of_it(retry_s):
    total_s = (RETRIES + 1) * 4.096e-6 * 2 ** ack_timeout(retry_s)
    assert retry_s / 2 < total_s <= retry_s


def test_a_status_is_named_with_its_number_and_what_to_check():
    assert "check" in explain(12)
    assert "(status 12)" in explain(12)
    assert explain(200) == "work completion error (status 200)"
