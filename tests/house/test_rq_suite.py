"""What RQ's own tests may fail of is said in the manual."""

import pytest

from tests.manual import TEXT
from tests.rq_suite.__main__ import exceptions

WORDS = " ".join(TEXT.split())


@pytest.mark.parametrize("words", sorted(set(exceptions().values())))
def test_the_manual_has_the_words(words: str) -> None:
    assert words in WORDS
