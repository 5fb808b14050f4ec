"""How inference ended."""

import enum


class Result(enum.IntEnum):
    """How inference ended for one example; `Info.result` holds the codes.

    Example:
        >>> Result(1).sentence
        'took all its steps; set a tolerance to stop when the activities have settled'
    """

    CONVERGED = 0
    STEP_LIMIT = 1
    DIVERGED = 2
    NON_FINITE = 3
    SLEW_LIMITED = 4
    RATE_LIMITED = 5

    @property
    def sentence(self) -> str:
        """What the code means, with advice."""
        return _SENTENCES[self]


_SENTENCES = {
    Result.CONVERGED: "converged: no activity moves faster than the tolerance",
    Result.STEP_LIMIT: "took all its steps; set a tolerance to stop when the activities have settled",
    Result.DIVERGED: "diverged: the energy ended above where it started; lower the step size of the activities",
    Result.NON_FINITE: "reached an infinite or undefined activity; lower the step size or the learning rate",
    Result.SLEW_LIMITED: "took all its steps, and a unit moved faster than its events could follow; send larger "
    "events, or take more and smaller steps",
    Result.RATE_LIMITED: "took all its steps, and a unit came too close to the most that its spikes can send; allow "
    "more spikes in a step, or give them a larger area",
}
