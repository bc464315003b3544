"""Who sends the request that is being answered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user as of one moment. `principals` are the user and their groups, by whom grants are found.

    `default_level` is what may be done to that of which no grant tells. `reads_all_experiments` and `reads_all_models`
    are True only if nothing at all is hidden from them, so that their lists need no filter.
    """

    user_id: int
    name: str
    is_admin: bool
    principals: tuple[int, ...]
    default_level: int
    reads_all_experiments: bool
    reads_all_models: bool
    token_id: int | None = None
    session_id: int | None = None
    shown: str = ""  # for people, where the name says little
    expires_in_s: float | None = None  # of token or session, when the database was asked

    @property
    def reads_all(self) -> bool:
        return self.reads_all_experiments and self.reads_all_models
