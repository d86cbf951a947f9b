"""The cache of blocked words, without Discord."""

from __future__ import annotations

from pathlib import Path

from bot.blocked import BlockedWords
from jobs.terms import parse_term
from store import BlockedTerm, Store

GUILD, ELSEWHERE, BOSS = "1", "2", "3"


class CountingStore(Store):
    """A real store that counts how often a list is read."""

    reads = 0

    def blocked(self, guild_id: str) -> tuple[BlockedTerm, ...]:
        self.reads += 1
        return super().blocked(guild_id)


def test_a_list_is_read_once_however_many_letters_are_typed_until_it_changes(
    tmp_path: Path,
) -> None:
    store = CountingStore(tmp_path / "jobs.db")
    words = BlockedWords(store)
    fox, owl = parse_term("Red Fox"), parse_term("owl")
    words.add(GUILD, (fox, owl), BOSS)
    store.reads = 0
    for _ in range(9):
        assert words.with_part(GUILD, "D F", 25) == ["Red Fox"]
        assert words.with_part(GUILD, "", 1) == ["owl"]
        assert words.terms(GUILD) == ["owl", "Red Fox"]
        assert words.found(GUILD, "an owl, a red fox") == ("owl", "Red Fox")
    assert store.reads == 1
    assert words.remove(GUILD, owl)
    assert words.with_part(GUILD, "", 25) == ["Red Fox"]
    assert words.add(GUILD, (owl, fox), BOSS) == (owl,)
    assert words.with_part(GUILD, "", 25) == ["owl", "Red Fox"]
    assert words.with_part(ELSEWHERE, "", 25) == []
    store.close()
