"""Questions to a person in a terminal: one of free text, one of yes or no, one by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Back(Exception):
    """The person goes back to the question before."""


class Dialog:
    """Asks, and asks again after an answer that is none; notes whether it has asked at all."""

    has_asked = False

    def ask(self, question: str, default: str = "", read: Callable[[str], str] = input) -> str:
        """Return the answer, or the default for none. Raises Back for "b"."""
        self.has_asked = True
        text = read(f"{question} [{default}]: " if default else f"{question}: ").strip()
        if text.lower() == "b":
            raise Back
        return text or default

    def pause(self, question: str, *others: str) -> str:
        """Wait for Enter, and return "", or the one of the other answers that the person gives."""
        while (text := self.ask(question).lower()) not in ("", *others):
            print(f"  {text!r} is no answer here: Enter alone, or b to go back.")
        return text

    def confirm(self, question: str, *noes: str) -> bool:
        """Return whether the person says yes, the default; `noes` are more words for no."""
        while (text := self.ask(question, "y").lower()) not in ("y", "yes", "n", "no", *noes):
            print(f"  {text!r} is neither y nor {(*noes, 'n')[0]}.")
        return text.startswith("y")

    def choose(self, question: str, names: Sequence[str], default: int = 0) -> int:
        """Return the place, from 0, of the one name that the person chooses by number."""
        while len(places := self.choose_some(question, names, [default])) > 1:
            print("  Give one number.")
        return places[0]

    def choose_some(
        self, question: str, names: Sequence[str], defaults: Sequence[int]
    ) -> list[int]:
        """Return the places, from 0, of the names that the person chooses by number."""
        for number, name in enumerate(names, start=1):
            print(f"  {number:>2}  {name}")
        default = ",".join(str(place + 1) for place in defaults)
        while True:
            parts = self.ask(question, default).replace(",", " ").split()
            numbers = [int(part) for part in parts if part.isdecimal()]
            if len(numbers) == len(parts) > 0 and all(0 < n <= len(names) for n in numbers):
                return [number - 1 for number in dict.fromkeys(numbers)]
            print(f"  Give the number before a name, from 1 to {len(names)}.")
