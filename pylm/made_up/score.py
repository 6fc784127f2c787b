"""How much of a text follows the rules of the language it should be in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Counts over the words or lines of a text; an unfinished last one is not counted."""

    n_units: int
    n_well_formed: int  # shaped as a unit of the language must be, whatever it says
    n_right: int  # well-formed, and true to the rules that need the other parts or units

    @property
    def share_well_formed(self) -> float:
        """From 0 to 1; 0 for a text without a finished unit."""
        return self.n_well_formed / self.n_units if self.n_units else 0.0

    @property
    def share_right(self) -> float:
        """From 0 to 1; 0 for a text without a finished unit."""
        return self.n_right / self.n_units if self.n_units else 0.0
