"""Short stories from a seeded grammar: who, where and what stay the same from the first sentence to the last."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Pick = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Hero:
    name: str
    kind: str
    they: str
    them: str
    their: str


_SHE = {"Mia": "girl", "Dot": "mouse", "Rosa": "cat", "Ada": "robot"}
_HE = {"Tom": "boy", "Max": "dog", "Otto": "bear", "Finn": "frog"}
HEROES = [
    *(Hero(name, kind, "she", "her", "her") for name, kind in _SHE.items()),
    *(Hero(name, kind, "he", "him", "his") for name, kind in _HE.items()),
]
TRAITS = ["kind", "brave", "curious", "quiet", "clever", "happy", "shy", "proud", "gentle", "busy"]
COLOURS = ["red", "blue", "green", "yellow", "white", "silver", "brown", "pink"]
TOYS = ["ball", "kite", "boat", "hat", "drum", "scarf", "lamp", "wagon", "key", "bell", "book", "cup"]
PLACES = ["in the park", "by the river", "in the garden", "on the hill", "near the old mill", "at the beach"]
PLACES += ["in the forest", "on the farm", "behind the house"]
HIDDEN = ["under a bush", "behind a big stone", "in a tall tree", "under a wooden bench", "inside an empty box"]
HIDDEN += ["in the long grass", "next to the gate", "in a hole in the ground"]
FOODS = ["soup", "bread", "pancakes", "jam", "salad", "cookies"]
PARTS = ["milk", "butter", "flour", "honey", "salt", "eggs", "apples", "carrots", "nuts", "berries"]
WEATHER = {
    "sunny": ["The sun was warm", "The sky was clear and blue", "Bees hummed in the flowers"],
    "rainy": ["The rain fell on the roof", "Dark clouds filled the sky", "There was water on all the roads"],
    "windy": ["The wind shook the trees", "Leaves flew through the air", "The clouds moved fast"],
    "snowy": ["Snow lay on the ground", "The air was cold and white", "The lake had turned to ice"],
}
ENDINGS = [
    "It was a very good day.",
    "They were friends from that day on.",
    "That night, {name} slept well.",
    "{name} never forgot that day.",
    "And {name} smiled all the way home.",
    "{name} could not wait for the next day.",
    "It is good to have a friend.",
]


def story(random_: random.Random) -> str:
    """One story of eight to eleven sentences."""
    pick = random_.choice
    hero, friend = random_.sample(HEROES, 2)
    weather, trait = pick(list(WEATHER)), pick(TRAITS)
    opening = pick(
        (
            f"Once upon a time, there was a {trait} {hero.kind} named {hero.name}.",
            f"{hero.name} was a {trait} {hero.kind}.",
            f"There once was a {hero.kind} called {hero.name}, and {hero.they} was very {trait}.",
            f"Far away lived a {trait} little {hero.kind}. {hero.their.capitalize()} name was {hero.name}.",
        )
    )
    sky = pick((f"It was a {weather} day.", f"One {weather} morning, {hero.name} woke up early."))
    plot = pick((_lost, _kitchen, _shared, _storm))
    ending = pick(ENDINGS).format(name=hero.name)
    return " ".join((opening, sky, f"{pick(WEATHER[weather])}.", *plot(pick, hero, friend), ending))


def _lost(pick: Pick, hero: Hero, friend: Hero) -> list[str]:
    toy, place, hidden = pick(TOYS), pick(PLACES), pick(HIDDEN)
    thing = f"{pick(COLOURS)} {toy}"
    return [
        f"{hero.name} {pick(('played with', 'went out with', 'carried'))} {hero.their} {thing} {place}.",
        pick((f"Then the {toy} was gone.", f"But soon {hero.they} could not find the {toy}.", f"The {toy} got lost.")),
        f"{hero.name} {pick(('was sad and began to cry', 'looked for it all day', 'asked everyone about it'))}.",
        f'{friend.name} the {friend.kind} came by and said, "{pick(("I will help you", "Let us look together"))}."',
        pick(
            (
                f"At last, {friend.name} found the {thing} {hidden}.",
                f'"Look, here it is!" said {friend.name}. The {thing} was {hidden}.',
                f"{friend.name} looked and looked, and saw something {hidden}. It was the {thing}!",
            )
        ),
        f"{hero.name} thanked {friend.name} and gave {friend.them} {pick(('a hug', 'a flower', 'a big smile'))}.",
    ]


def _kitchen(pick: Pick, hero: Hero, friend: Hero) -> list[str]:
    food, missing = pick(FOODS), pick(PARTS)
    first = pick([part for part in PARTS if part != missing])
    second = pick([part for part in PARTS if part not in (first, missing)])
    verb = "are" if missing.endswith("s") else "is"
    return [
        f"{hero.name} wanted to make {food} for {friend.name} the {friend.kind}.",
        f"{hero.they.capitalize()} put {first} and {second} into a big {pick(('bowl', 'pot', 'pan'))}.",
        f'"Oh no, there {verb} no {missing}!" said {hero.name}.',
        f"So {hero.they} {pick(('went', 'ran'))} to the {pick(('shop', 'market', 'farm'))} and got {missing}.",
        f"When {friend.name} came, the {food} smelled {pick(('sweet', 'very good', 'like summer'))}.",
        f"They ate all the {food} and {pick(('laughed', 'sang', 'told stories', 'danced'))} together.",
    ]


def _shared(pick: Pick, hero: Hero, friend: Hero) -> list[str]:
    toy, place = pick(TOYS), pick(PLACES)
    thing = f"{pick(COLOURS)} {toy}"
    return [
        f"{hero.name} found a {thing} {place}.",
        f'"{pick((f"This {toy} is mine", f"That is my {toy}"))}," said {friend.name} the {friend.kind}.',
        f"{hero.name} {pick(('did not want to give it back', 'wanted to keep it', 'did not say a word'))}.",
        f"But then {hero.they} saw that {friend.name} was {pick(('sad', 'about to cry', 'looking at the ground'))}.",
        f'"Here is your {thing}," said {hero.name}. "{pick(("I am sorry", "Please do not be sad"))}."',
        f'{friend.name} smiled and said, "{pick(("Let us", "We can", "Come and"))} play with the {toy} together."',
    ]


def _storm(pick: Pick, hero: Hero, friend: Hero) -> list[str]:
    light, shelter = pick(("lamp", "candle", "fire")), pick(("a small hut", "an old barn", "a dry cave"))
    return [
        f"{hero.name} {pick(('went for a walk', 'was picking flowers', 'was flying a kite'))} {pick(PLACES)}.",
        f"Suddenly a storm came, and {pick(('it was as dark as night', 'the thunder was very loud'))}.",
        f"{hero.name} ran to {shelter} and saw {friend.name} the {friend.kind} there.",
        f'"I am afraid," said {friend.name}. "{pick(("Do not be afraid", "I will stay with you"))}," said {hero.name}.',
        f"{hero.they.capitalize()} lit a {pick(('small', 'bright', 'warm'))} {light}, and they sat by the {light}.",
        f"{pick(('In the morning', 'After some time', 'At last'))}, the storm was over.",
    ]


def stories(count: int, seed: int, without: frozenset[str] = frozenset()) -> list[str]:
    """``count`` different stories, none of them in ``without``."""
    random_, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        text = story(random_)
        if text not in without:
            found[text] = None
    return list(found)
