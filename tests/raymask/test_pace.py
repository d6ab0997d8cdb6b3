"""What a line says on speed: every part of the way from disk to crops, without waiting for the device."""

import time

import pytest
import torch

from raymask.pace import DEVICE, REMOTE_TIMES, TIMES, Spans, pace

TIMINGS = {"data_wait": 1.0, "read": 2.0, "decode": 4.0, "cut": 0.5, "transfer": 0.0, "finish": 3.0}


def test_times_are_shares_of_the_interval_and_the_queue_is_a_count():
    found = pace(80, 4.0, {**TIMINGS, "queue": 2})
    assert tuple(sorted(found)) == tuple(sorted(TIMES))
    assert found["images_per_s"] == 20 and found["data_queue"] == 2 and found["data_wait"] == 0.25
    assert [found[f"data_{part}"] for part in ("read", "decode", "cut")] == [0.5, 1.0, 0.125]
    assert [found[f"data_{part}"] for part in DEVICE] == [0.0, 0.75]


def test_a_line_of_ingest_from_afar_says_what_came_over_the_wire_and_who_was_replaced():
    remote = {"pull": 1.0, "unpack": 0.5, "wire": 8e6, "replaced": 1}
    found = pace(80, 4.0, {**TIMINGS, "queue": 2, **remote})
    assert tuple(sorted(found)) == tuple(sorted((*TIMES, *REMOTE_TIMES)))
    assert [found[name] for name in REMOTE_TIMES] == [0.25, 0.125, 2.0, 1]


def test_spans_of_a_cpu_add_up_until_they_are_taken():
    spans = Spans(torch.device("cpu"))
    for _ in range(2):
        with spans("finish"):
            time.sleep(0.01)
    first, second = spans.take(), spans.take()
    assert first["finish"] >= 0.02 and first["transfer"] == 0
    assert second == dict.fromkeys(DEVICE, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_spans_of_a_gpu_count_once_it_has_done_the_work():
    spans, ones = Spans(torch.device("cuda")), torch.ones(2048, 2048, device="cuda")
    with spans("finish"):
        ones @ ones
    torch.cuda.synchronize()
    assert spans.take()["finish"] > 0
