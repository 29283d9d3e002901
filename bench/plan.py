"""How much is measured. Rounds are interleaved: each contestant once, then each again, so that what else the machine does falls on all."""
import dataclasses
import statistics


@dataclasses.dataclass
class Plan:
    quick: bool
    rounds: int
    forward_runs: int        # of each engine in a round
    tutorial_runs: int       # of torch in float32, which takes longest
    unet_s: float            # of requests to one server in a round
    tiny_s: float
    open_s: float            # of each offered load
    scale_s: float           # of each setting
    colds: int               # starts of each kind
    batch_rounds: int        # of each number of tiles at once


FULL = Plan(quick=False, rounds=5, forward_runs=4, tutorial_runs=2, unet_s=1.5, tiny_s=1.0, open_s=2.0, scale_s=1.0, colds=4, batch_rounds=3)
QUICK = Plan(quick=True, rounds=3, forward_runs=3, tutorial_runs=1, unet_s=1.0, tiny_s=0.5, open_s=1.0, scale_s=0.5, colds=2, batch_rounds=1)


def spread(samples):
    """{median, least, most, count} of numbers."""
    return {"median": statistics.median(samples), "least": min(samples), "most": max(samples), "count": len(samples)}


def told(samples, unit="ms", digits=1):
    """'12.3 ms (11.9 to 14.0)'"""
    s = spread(samples)
    return f"{s['median']:.{digits}f} {unit} ({s['least']:.{digits}f} to {s['most']:.{digits}f})"
