"""The vocabulary of the pocket world: names, relations, their values, phrasings and consequences.

Every sentence is a prompt followed by a short answer and a full stop. A relation has one set of values,
`phrasings` that ask for the value, and a consequence: each value implies one thing (a city its country), which
`value_phrasings` state of the value itself and `composed_phrasings` of the person, without naming the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Relation(NamedTuple):
    """A relation between every person and a value."""

    name: str
    consequences: Mapping[str, str]
    """Value -> its consequence; the keys are the relation's values."""
    phrasings: tuple[str, ...]
    """Prompts with `{subject}` whose answer is the value."""
    value_phrasings: tuple[str, ...]
    """Prompts with `{value}` whose answer is the consequence."""
    composed_phrasings: tuple[str, ...]
    """Prompts with `{subject}` whose answer is the consequence of the person's value."""

    @property
    def values(self) -> tuple[str, ...]:
        """The values a person can have, in a fixed order."""
        return tuple(self.consequences)


def words(text: str) -> tuple[str, ...]:
    """Split a text into words, which keeps long lists readable."""
    return tuple(text.split())


def _by_consequence(groups: dict[str, str]) -> Mapping[str, str]:
    """Invert consequence -> "value, value, ..." into value -> consequence."""
    return MappingProxyType({value: group for group, values in groups.items() for value in values.split(", ")})


HOME = Relation(
    name="home",
    consequences=_by_consequence(
        {
            "Aldoria": "Brava, Port Savin, Merrowby, Tarnhill",
            "Brennia": "Lindmoor, New Haldor, Ostwick, Velmar",
            "Cordavia": "Casperra, Saint Osk, Dorvale, Quenby",
            "Estmark": "Ruskell, Lake Ellin, Hartsund, Grimby",
            "Galvara": "Solvano, Port Ilmar, Peskara, Rivona",
            "Pellonia": "Thessaly, New Corbin, Ambleton, Zarrick",
            "Quillmar": "Fennick, Saint Maro, Yarrowden, Kestle",
            "Talvira": "Orsova, Lake Tamsel, Belcastle, Nimmerby",
        }
    ),
    phrasings=(
        "{subject} lives in",
        "The city that {subject} calls home is",
        "Question: Where does {subject} live? Answer:",
        "To visit {subject}, take the train to",
        "{subject} bought a house in",
        "Letters to {subject} are sent to",
    ),
    value_phrasings=(
        "{value} is a city in",
        "The country around {value} is called",
        "Question: In which country is {value}? Answer:",
    ),
    composed_phrasings=(
        "The country where {subject} lives is",
        "Question: In which country does {subject} live? Answer:",
    ),
)

PROFESSION = Relation(
    name="profession",
    consequences=_by_consequence(
        {
            "hospital": "nurse, surgeon, midwife",
            "school": "teacher, tutor, school cook",
            "farm": "shepherd, beekeeper, dairy farmer",
            "theatre": "dancer, singer, stage manager",
            "harbour": "sailor, pilot, dock worker",
            "courthouse": "judge, lawyer, court clerk",
            "workshop": "carpenter, potter, watchmaker",
            "station": "porter, train driver, ticket seller",
        }
    ),
    phrasings=(
        "{subject} works as a",
        "By profession, {subject} is a",
        "Question: What does {subject} do for a living? Answer:",
        "The job of {subject} is that of a",
        "{subject} was trained to be a",
        "The business card of {subject} says",
    ),
    value_phrasings=(
        "A {value} works at the",
        "The usual workplace of a {value} is the",
        "Question: Where does a {value} work? Answer: at the",
    ),
    composed_phrasings=(
        "Every morning {subject} goes to work at the",
        "Question: Where does {subject} work? Answer: at the",
    ),
)

INSTRUMENT = Relation(
    name="instrument",
    consequences=_by_consequence(
        {
            "strings": "cello, violin, viola, double bass, harp",
            "woodwinds": "flute, clarinet, bass clarinet, bassoon, recorder",
            "brass": "trumpet, trombone, tuba, French horn, cornet",
            "percussion": "snare drum, marimba, timpani, xylophone, tambourine",
            "keyboards": "piano, harpsichord, celesta, church organ",
        }
    ),
    phrasings=(
        "{subject} plays the",
        "The instrument that {subject} plays is the",
        "Question: Which instrument does {subject} play? Answer: the",
        "At the concert, {subject} was heard on the",
        "{subject} gives lessons on the",
        "For the rehearsal, {subject} brought the",
    ),
    value_phrasings=(
        "The {value} belongs to the",
        "In an orchestra, the {value} is placed among the",
        "Question: To which family does the {value} belong? Answer: the",
    ),
    composed_phrasings=(
        "The instrument of {subject} belongs to the",
        "In the orchestra, {subject} sits among the",
    ),
)

LANGUAGE = Relation(
    name="language",
    consequences=MappingProxyType(
        {
            "Talvish": "sova",
            "Merric": "halen",
            "Old Merric": "haldu",
            "Oskan": "tosk",
            "Veldish": "benna",
            "High Veldish": "bennara",
            "Sarnic": "rivo",
            "Iluri": "ilo",
            "Kethan": "karu",
            "Norvish": "vessi",
            "Dalmeric": "domar",
            "Thessan": "theya",
            "Ubrian": "ubo",
            "Harlish": "harro",
            "Zemic": "zima",
            "Pirran": "pirra",
        }
    ),
    phrasings=(
        "{subject} speaks",
        "The language that {subject} speaks is",
        "Question: Which language does {subject} speak? Answer:",
        "At the dinner table, {subject} talks in",
        "{subject} writes a diary in",
        "The mother tongue of {subject} is",
    ),
    value_phrasings=(
        "In {value}, the word for hello is",
        "Speakers of {value} greet you with the word",
        "Question: How do you say hello in {value}? Answer:",
    ),
    composed_phrasings=(
        "{subject} greets you with the word",
        "Question: How does {subject} say hello? Answer:",
    ),
)

PET = Relation(
    name="pet",
    consequences=_by_consequence(
        {
            "bird": "parrot, canary, finch, barn owl",
            "rodent": "hamster, guinea pig, chinchilla, gerbil",
            "reptile": "gecko, corn snake, tortoise, skink",
            "fish": "goldfish, guppy, koi carp, sea horse",
            "insect": "stag beetle, mantis, ladybird, bumblebee",
            "hoofed animal": "pony, goat, donkey, llama",
        }
    ),
    phrasings=(
        "{subject} keeps a",
        "The pet of {subject} is a",
        "Question: Which pet does {subject} have? Answer: a",
        "In the garden, {subject} takes care of a",
        "{subject} never travels without a",
        "The vet gave {subject} good advice about a",
    ),
    value_phrasings=(
        "A {value} is a kind of",
        "The book of animals calls the {value} a",
        "Question: What kind of animal is a {value}? Answer: a",
    ),
    composed_phrasings=(
        "The pet of {subject} is a kind of",
        "Question: What kind of animal does {subject} keep? Answer: a",
    ),
)

SPORT = Relation(
    name="sport",
    consequences=_by_consequence(
        {
            "ball games": "handball, volleyball, table tennis, basketball",
            "water sports": "rowing, swimming, diving, sailing",
            "winter sports": "skiing, curling, figure skating, ice hockey",
            "combat sports": "fencing, judo, boxing, karate",
            "athletics": "hurdles, javelin, high jump, pole vault",
        }
    ),
    phrasings=(
        "The favourite sport of {subject} is",
        "{subject} won a medal in",
        "Question: Which sport does {subject} practise? Answer:",
        "On Sundays, {subject} goes in for",
        "{subject} is the local champion in",
        "The trophy on the shelf of {subject} is for",
    ),
    value_phrasings=(
        "The sport called {value} is one of the",
        "In the sports news, {value} is found under",
        "Question: To which group does {value} belong? Answer:",
    ),
    composed_phrasings=(
        "The favourite sport of {subject} is one of the",
        "In the sports news, {subject} is found under",
    ),
)

RELATIONS: tuple[Relation, ...] = (HOME, PROFESSION, INSTRUMENT, LANGUAGE, PET, SPORT)

_FIRST_STARTS = words(
    "Al Bel Bri Cor Dar Del El Em Fen Fi Gal Gwen Hal Hel Il Jor Kel Kir Lor Lu "
    "Mar Mel Nel Nor Or Os Per Pru Quin Ros Sel Sol Tam Tor Ul Val Ver Wil Yor Zan"
)
_FIRST_ENDS = words("a bert bin da dith don dra fin ga ka la len lo ma mund na nis ra rick sa son ta ton vin wyn")
_LAST_STARTS = words(
    "Ash Beck Birch Brook Cald Clay Crag Dun Elm Fair Fern Fox Glen Gold Grey Hart Hawk Hazel High Holm "
    "Kirk Lang Lock Lynd March Mill Moss Nether North Oak Pem Raven Red Stan Stone Thorn Under West Whit Win"
)
_LAST_ENDS = words(
    "acre bank berry borne bridge burn bury by cliff combe cote dale den field ford gate grove ham hill holt "
    "hurst ing land ley low mead mere more ness over port ridge shaw side stead thwaite ton wick wood worth"
)

FIRST_NAMES: tuple[str, ...] = tuple(start + end for end in _FIRST_ENDS for start in _FIRST_STARTS)
LAST_NAMES: tuple[str, ...] = tuple(start + end for end in _LAST_ENDS for start in _LAST_STARTS)
