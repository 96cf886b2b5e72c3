"""Short stories from a seeded grammar: who, where and what stay the same from the first sentence to the last."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Hero:
    name: str
    kind: str
    they: str
    them: str
    their: str


HEROES = [
    *(Hero(name, kind, "she", "her", "her") for name, kind in (("Mia", "girl"), ("Lily", "girl"), ("Dot", "mouse"))),
    *(Hero(name, kind, "she", "her", "her") for name, kind in (("Rosa", "cat"), ("Nell", "duck"), ("Ada", "robot"))),
    *(Hero(name, kind, "he", "him", "his") for name, kind in (("Tom", "boy"), ("Ben", "boy"), ("Max", "dog"))),
    *(Hero(name, kind, "he", "him", "his") for name, kind in (("Rusty", "fox"), ("Otto", "bear"), ("Finn", "frog"))),
]
TRAITS = ["little", "kind", "brave", "curious", "quiet", "clever", "happy", "shy"]
COLOURS = ["red", "blue", "green", "yellow", "white", "silver"]
TOYS = ["ball", "kite", "boat", "hat", "drum", "scarf", "lamp", "wagon"]
PLACES = ["in the park", "by the river", "in the garden", "on the hill", "near the old mill", "at the beach"]
HIDDEN = ["under a bush", "behind a big stone", "in a tall tree", "under a wooden bench", "inside an empty box"]
FOODS = ["soup", "bread", "a cake", "a pie", "pancakes"]
PARTS = ["milk", "eggs", "butter", "flour", "apples", "honey", "carrots", "salt"]
WEATHER = {
    "sunny": ["The sun was warm", "The sky was clear and blue"],
    "rainy": ["The rain fell on the roof", "Dark clouds filled the sky"],
    "windy": ["The wind shook the trees", "Leaves flew through the air"],
    "snowy": ["Snow lay on the ground", "The air was cold and white"],
}
ENDINGS = [
    "It was a very good day.",
    "They were friends from that day on.",
    "That night, {name} slept well.",
    "{name} never forgot that day.",
    "And {name} smiled all the way home.",
]


def story(random_: random.Random) -> str:
    """One story of five to nine sentences."""
    hero, friend = random_.sample(HEROES, 2)
    weather = random_.choice(list(WEATHER))
    plot = random_.choice((_lost, _kitchen, _shared, _storm))
    opening = random_.choice(
        (
            f"Once upon a time, there was a {random_.choice(TRAITS)} {hero.kind} named {hero.name}.",
            f"{hero.name} was a {random_.choice(TRAITS)} {hero.kind}.",
            f"There once was a {hero.kind} called {hero.name}, and {hero.they} was very {random_.choice(TRAITS[1:])}.",
        )
    )
    sky = f"It was a {weather} day. {random_.choice(WEATHER[weather])}."
    return " ".join((opening, sky, *plot(random_, hero, friend), random_.choice(ENDINGS).format(name=hero.name)))


def _lost(random_: random.Random, hero: Hero, friend: Hero) -> list[str]:
    toy, place, hidden = (random_.choice(options) for options in (TOYS, PLACES, HIDDEN))
    thing = f"{random_.choice(COLOURS)} {toy}"
    found = [
        f"At last, {friend.name} found the {thing} {hidden}.",
        f'"Look, here it is!" said {friend.name}. The {thing} was {hidden}.',
    ]
    return [
        f"{hero.name} played with {hero.their} {thing} {place}.",
        random_.choice((f"Then the {toy} was gone.", f"But soon {hero.they} could not see the {toy}.")),
        f"{hero.name} was sad and began to {random_.choice(('cry', 'look for it'))}.",
        f'{friend.name} the {friend.kind} came by and said, "I will help you."',
        random_.choice(found),
        f"{hero.name} thanked {friend.name} and gave {friend.them} a hug.",
    ]


def _kitchen(random_: random.Random, hero: Hero, friend: Hero) -> list[str]:
    food = random_.choice(FOODS)
    first, second, missing = random_.sample(PARTS, 3)
    return [
        f"{hero.name} wanted to make {food} for {friend.name}.",
        f"{hero.they.capitalize()} put {first} and {second} into a big {random_.choice(('bowl', 'pot'))}.",
        f'"Oh no, there is no {missing}!" said {hero.name}.'
        if not missing.endswith("s")
        else f'"Oh no, there are no {missing}!" said {hero.name}.',
        f"So {hero.they} went to the {random_.choice(('shop', 'market', 'farm'))} and got some {missing}.",
        f"When {friend.name} the {friend.kind} came, the kitchen smelled {random_.choice(('sweet', 'warm', 'good'))}.",
        f"They ate {food.removeprefix('a ') if food.startswith('a ') else food} and "
        f"{random_.choice(('laughed', 'sang', 'told stories'))} together.",
    ]


def _shared(random_: random.Random, hero: Hero, friend: Hero) -> list[str]:
    toy, place = random_.choice(TOYS), random_.choice(PLACES)
    colour = random_.choice(COLOURS)
    return [
        f"{hero.name} found a {colour} {toy} {place}.",
        f'"This {toy} is mine," said {friend.name} the {friend.kind}.',
        f"{hero.name} {random_.choice(('did not want to give it back', 'wanted to keep it'))}.",
        f"But then {hero.they} saw that {friend.name} was {random_.choice(('sad', 'about to cry'))}.",
        f'"Here is your {colour} {toy}," said {hero.name}. "I am sorry."',
        f'{friend.name} smiled and said, "{random_.choice(("Let us play", "We can play"))} with the {toy} together."',
    ]


def _storm(random_: random.Random, hero: Hero, friend: Hero) -> list[str]:
    place, shelter = random_.choice(PLACES), random_.choice(("a small hut", "an old barn", "a dry cave"))
    light = random_.choice(("lamp", "candle"))
    return [
        f"{hero.name} went for a walk {place}.",
        "Suddenly a storm came, and it was as dark as night.",
        f"{hero.name} ran to {shelter} and saw {friend.name} the {friend.kind} there.",
        f'"I am afraid," said {friend.name}. "Do not be afraid," said {hero.name}.',
        f"{hero.they.capitalize()} lit a {random_.choice(COLOURS)} {light}, and they sat close to the {light}.",
        "In the morning, the storm was over.",
    ]


def stories(count: int, seed: int, without: frozenset[str] = frozenset()) -> list[str]:
    """``count`` different stories, none of them in ``without``."""
    random_, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        text = story(random_)
        if text not in without:
            found[text] = None
    return list(found)
