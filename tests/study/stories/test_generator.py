"""Made-up stories: the same for a seed, different from each other, and true to their prompt."""

import pytest

from squeeze.study.stories.generator import make_stories, make_story
from squeeze.study.stories.words import words
from squeeze.text_statistics import describe

pytestmark = pytest.mark.cpu


def test_a_story_depends_on_its_seed_and_number_alone():
    assert make_stories(20, seed=3)[7] == make_story(3, 7)
    assert make_stories(5, seed=3, start=10) == make_stories(15, seed=3)[10:]
    assert make_stories(20, seed=3) != make_stories(20, seed=4)


def test_stories_are_all_different():
    assert len({story.text for story in make_stories(2000, seed=0)}) == 2000


def test_a_prompt_ends_where_its_story_begins_and_names_its_words_and_people():
    for story in make_stories(200, seed=0):
        assert story.prompt.endswith("Story:\n")
        assert "{" not in story.prompt + story.text
        summary = next(x for x in story.prompt.splitlines() if x.startswith("Summary: "))
        assert any(character.name in summary for character in words().characters)
        assert ("MoralValue" in story.prompt) == ("The moral of the story" in story.text)
        assert ("Dialogue" in story.prompt) == ('"' in story.text)


def test_every_plot_and_phrasing_can_be_told():
    told = "\n".join(story.text for story in make_stories(2000, seed=0))
    for plot in words().plots:
        for phrasing in [p for part in plot.parts for p in part]:
            fixed = max((x.split("{")[0] for x in phrasing.split("}")), key=len)
            assert fixed.strip() in told


def test_stories_do_not_repeat_themselves():
    found = describe([story.text for story in make_stories(200, seed=0)])
    assert found.repeated_4 < 0.01
    assert 80 < found.length < 120
