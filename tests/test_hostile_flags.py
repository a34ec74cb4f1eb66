"""Hostile flag values: each makes a RunConfig that round-trips and has a plan, or is refused in one clear error."""

from hypothesis import strategies as st

from convjax.config import FIELD_NAMES, RunConfig
from convjax.nn.geometry import plan
from tests.helpers.hostile import WORDS, amounts, feed, mutated
from tests.helpers.limits import read_or_refused

DEFAULTS = {name: str(getattr(RunConfig(), name)) for name in FIELD_NAMES}


def texts(name: str) -> st.SearchStrategy[str]:
    default = DEFAULTS[name]
    words = st.sampled_from(WORDS) | st.sampled_from([default, f"{default}-{default}", f"{default}x2"])
    return words | words.flatmap(lambda word: mutated(word.encode())).map(lambda word: word.decode(errors="replace"))


SETTINGS = st.lists(st.sampled_from(FIELD_NAMES), min_size=1, max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: texts(name) for name in names})
)


@amounts(400, 20_000)
def test_flags_make_a_config_that_round_trips_or_are_refused(tmp_path, examples):
    inside = tmp_path / "arena" / "inside"
    inside.mkdir(parents=True)

    def check(values):
        config = read_or_refused(lambda: RunConfig(**values), inside)
        if config is not None:
            assert RunConfig.from_dict(config.to_dict()).digest == config.digest
            read_or_refused(lambda: plan(config, (28, 28, 1), 10), inside)

    feed(SETTINGS, check, examples)
