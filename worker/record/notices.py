"""What an app is told of by NOTIFLOG_HOOK: prompts that failed for good, tokens that are pruned. Pure."""

from collections.abc import Iterable
from typing import Any

from .. import logs
from ..judge.classify import Outcome, StaleToken
from .store import Recorded


def notices(outcomes: Iterable[Outcome], recorded: Recorded) -> list[dict[str, Any]]:
    """The notices of some outcomes that are committed, each once: of new rows and tokens pruned now."""
    told: list[dict[str, Any]] = []
    prompts: set[str] = set()
    pruned = set(recorded.tokens.pruned)
    for outcome in outcomes:
        key = outcome.idempotency_key
        if outcome.final and key in recorded.inserted and outcome not in recorded.refused:
            if outcome.status == "failed" and key not in prompts:
                told.append(_prompt_failed(outcome))
            prompts.add(key)
        for stale in outcome.stale:
            if stale.token in pruned:
                pruned.remove(stale.token)
                told.append(token_pruned(stale, outcome))
    return told


def token_pruned(stale: StaleToken, outcome: Outcome | None = None) -> dict[str, Any]:
    """A token is deleted or marked. `outcome`: of the prompt that found it dead; None: the sweep did."""
    return {
        "notice": "token_pruned",
        "token": logs.token_hash(stale.token),
        "delivery_channel": stale.channel,
        "reason": stale.reason,
        "peer_mentor_id": outcome and str(outcome.peer_mentor_id),
    }


def _prompt_failed(outcome: Outcome) -> dict[str, Any]:
    return {
        "notice": "prompt_failed",
        "idempotency_key": outcome.idempotency_key,
        "peer_mentor_id": str(outcome.peer_mentor_id),
        "chapter_id": str(outcome.chapter_id),
        "scenario_rule_id": str(outcome.scenario_rule_id),
        "delivery_channel": outcome.delivery_channel,
        "attempted_at": outcome.delivered_at.isoformat(),
        "reason": outcome.reason,
    }
