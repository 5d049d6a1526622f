"""Answers of FCM and APNs against what they prove (cases/), and every rule against an answer."""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.judge.cases import CASES, Case
from worker.events import Channel
from worker.judge.answers import ApnsAnswer, FcmAnswer, read_apns, read_fcm
from worker.judge.classify import classify
from worker.judge.rules import APNS_RULES, FCM_RULES, Evidence, Rule


@pytest.mark.parametrize("case", CASES, ids=[f"{case.file}: {case.why}" for case in CASES])
def test_case(case: Case) -> None:
    verdict = classify(case.channel, case.status, case.body)

    assert (verdict.reason, verdict.evidence, verdict.dead_since) == (
        case.reason,
        case.evidence,
        case.dead_since,
    )


def test_every_case_proves_a_rule_of_its_own() -> None:
    assert [why for why, count in Counter(case.why for case in CASES).items() if count > 1] == []


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 350


Answer = TypeVar("Answer", FcmAnswer, ApnsAnswer)


def _unreached(
    rules: tuple[Rule[Answer], ...], read: Callable[[int | None, object], Answer], channel: Channel
) -> list[str]:
    """The rules that are no case's first match; two rules of one name count as two."""
    answers = [read(case.status, case.body) for case in CASES if case.channel == channel]
    reached = {next(i for i, rule in enumerate(rules) if rule.matches(answer)) for answer in answers}
    return [f"{i}: {rule.reason}" for i, rule in enumerate(rules) if i not in reached]


def test_every_rule_for_fcm_has_a_case() -> None:
    assert _unreached(FCM_RULES, read_fcm, "fcm") == []


def test_every_rule_for_apns_has_a_case() -> None:
    assert _unreached(APNS_RULES, read_apns, "apns") == []


@pytest.mark.parametrize("evidence", Evidence)
def test_only_death_prunes(evidence: Evidence) -> None:
    verdict = next(
        classify(case.channel, case.status, case.body) for case in CASES if case.evidence == evidence
    )

    assert verdict.prunes == (evidence in (Evidence.PROVEN_DEAD, Evidence.PRESUMED_DEAD))
