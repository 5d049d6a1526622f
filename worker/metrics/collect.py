"""Everything there is to tell, as the families of Prometheus' client library."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ..record.numbers import (
    ANSWERS,
    CHANNELS,
    FAULTS,
    LAG,
    OTHER_FAULT,
    STATUSES,
    TOKENS,
    TURN,
    Histogram,
)
from .gauges import KEEP, OfRedis, Values, of_postgres
from .look import Look
from .names import FAMILIES, Family

#: Seconds for each server's answers.
PATIENCE = 5.0

#: The workers' counters: the labels of each number, by the number's name.
COUNTERS: dict[str, dict[str, tuple[str, ...]]] = {
    "notiflog_outcomes_total": {
        f"outcomes:{channel}:{status}": (channel, status) for channel in CHANNELS for status in STATUSES
    },
    "notiflog_duplicates_total": {"duplicates:agreeing": ("false",), "duplicates:conflicting": ("true",)},
    "notiflog_rejected_events_total": {"rejected": ()},
    "notiflog_send_results_total": {f"results:{':'.join(each)}": each for each in ANSWERS},
    "notiflog_tokens_total": {f"tokens:{':'.join(each)}": each for each in TOKENS},
    "notiflog_database_faults_total": {f"faults:{word}": (word,) for word in (*FAULTS.values(), OTHER_FAULT)},
}
HISTOGRAMS = {"notiflog_turn_seconds": TURN, "notiflog_lag_seconds": LAG}


class Everything:
    """Asks both servers side by side with each scrape; what does not come in time is left out.

    Raises BadAddress where Redis' address is none.
    """

    def __init__(self, queue: str) -> None:
        redis = OfRedis(queue)
        self._numbers = Look(redis.numbers)
        self._state = Look(redis.state)
        self._postgres = Look(of_postgres)
        self._slow = (Look(redis.stopped, KEEP), Look(redis.lost, KEEP))

    def collect(self, patience: float = PATIENCE) -> Iterator[Metric]:
        """The metrics, in the order of their list. `patience`: seconds for all of them."""
        until = time.monotonic() + patience
        for look in (self._numbers, self._state, self._postgres, *self._slow):
            look.start()
        numbers = self._numbers.answer(until)
        state, postgres = self._state.answer(until), self._postgres.answer(until)
        values: Values = {
            ("notiflog_up", "redis"): numbers is not None and state is not None,
            ("notiflog_up", "postgres"): postgres is not None,
        }
        values |= (state or {}) | (postgres or {})
        # What takes long comes with a later scrape.
        soon = min(until, time.monotonic() + patience / 10)
        for slow in self._slow if state is not None else ():
            values |= slow.answer(soon) or {}
        for family in FAMILIES:
            if family.kind == "gauge":
                yield from _gauge(family, values)
            elif numbers is not None:
                yield _counted(family, numbers)


def _gauge(family: Family, values: Values) -> Iterator[Metric]:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for (name, *labels), value in values.items():
        if name == family.name:
            metric.add_metric(labels, float(value))
    if metric.samples:
        yield metric


def _counted(family: Family, numbers: Mapping[str, int]) -> Metric:
    if histogram := HISTOGRAMS.get(family.name):
        return _histogram(family, histogram, numbers)
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for name, labels in COUNTERS[family.name].items():
        metric.add_metric(labels, numbers[name])
    return metric


def _histogram(family: Family, histogram: Histogram, numbers: Mapping[str, int]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help)
    buckets: list[tuple[str, float]] = []
    seen = 0
    for bound, name in zip((*map(float, histogram.bounds), "+Inf"), histogram.buckets, strict=True):
        seen += numbers[name]
        buckets.append((str(bound), seen))
    metric.add_metric([], buckets, numbers[histogram.total] / 1000)
    return metric
