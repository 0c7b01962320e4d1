"""Questions without an image, for the text-only half of the joint recipe, and the held-out ones of the report."""

from collections.abc import Iterator, Sequence
from itertools import product

ANIMALS = (
    "bear bee camel cat chicken cow crocodile dog dolphin duck eagle elephant fox frog giraffe goat horse kangaroo "
    "lion monkey mouse owl penguin pig rabbit shark sheep snake spider tiger turtle whale wolf zebra"
).split()
COUNTRIES = (
    "Argentina Australia Austria Belgium Brazil Canada Chile China Colombia Cuba Denmark Egypt Finland France Germany "
    "Greece Hungary Iceland India Indonesia Ireland Italy Japan Kenya Mexico Morocco Nepal Norway Peru Poland Portugal "
    "Russia Spain Sweden Switzerland Thailand Turkey Vietnam"
).split()
SUBJECTS = (
    "algebra|an airport|an alarm clock|an atom|bread|a bridge|a calendar|a camera|a candle|chess|chocolate|a cloud|"
    "coffee|a compass|a computer|cotton|a dictionary|electricity|an engine|evaporation|a forest|friendship|a glacier|"
    "glass|gold|gravity|a guitar|the heart|honey|the internet|a library|light|the moon|music|a novel|the ocean|paper|"
    "photosynthesis|a piano|plastic|a poem|rain|a rainbow|a recipe|a river|rust|salt|a shadow|sleep|soap|sound|steam|"
    "the sun|tea|a telescope|a train|a tree|a volcano|water|the wind"
).split("|")
JOBS = (
    "actor architect baker barber carpenter chef cleaner dentist doctor driver electrician farmer firefighter florist "
    "gardener judge lawyer librarian mechanic musician nurse painter pilot plumber reporter sailor scientist tailor "
    "teacher translator"
).split()
OBJECTS = (
    "backpack basket bed blanket bottle bowl broom brush bucket button carpet chair clock coat comb cup curtain desk "
    "door drum envelope fork fridge glove hat helmet kettle key knife ladder lamp map mirror mop needle notebook "
    "oven pan pen pencil pillow plate pot purse ring rope ruler saw scarf shelf shirt shoe shovel sofa spoon stove "
    "suitcase table tent towel umbrella vase wallet whistle window"
).split()
VERBS = (
    "bring build buy carry catch choose climb cook dance draw drink drive eat fall find fly forget give grow hear "
    "help hide jump keep laugh learn leave listen lose meet paint pay play read remember ride run say see sell sing "
    "sit sleep speak stand swim teach think throw walk wash write"
).split()
CITIES = (
    "Athens|Bangkok|Barcelona|Berlin|Boston|Cairo|Chicago|Dublin|Edinburgh|Florence|Geneva|Hamburg|Istanbul|Kyoto|Lisbon|"
    "London|Madrid|Melbourne|Milan|Montreal|Moscow|Mumbai|Munich|Naples|New York|Oslo|Paris|Prague|Rome|Sydney|Tokyo|"
    "Toronto|Vienna|Venice|Warsaw|Zurich"
).split("|")
WORDS = (
    "brave bright calm careful cheap clean clever cold cruel dark deep difficult early easy empty fast friendly full "
    "gentle happy heavy high honest hot hungry kind large late lazy light long loud modern narrow new noisy old open "
    "poor quick quiet rich sad safe sharp short simple slow small soft strong sweet tall thin tired true warm weak "
    "wide wise young"
).split()
GENERAL = (
    "Hello!|Hi, how are you?|Good morning.|Who are you?|What can you do?|Thank you for your help.|Goodbye!|"
    "Tell me something interesting.|Can you help me with my homework?|Write a short poem.|Tell me a joke.|"
    "How do I learn a language?|How do I make a cup of tea?|How can I sleep better?|Give me an idea for dinner.|"
    "Which day comes after Monday?|How many months does a year have?|How many minutes does an hour have?|"
    "Name the four seasons.|Name three fruits.|Name three vegetables.|Name three musical instruments.|"
    "Name the planet that we live on.|Why should people read books?|Write a title for a story about a lost key.|"
    "What should I pack for a trip to the beach?|How do plants grow?|What is the largest ocean?"
).split("|")


def _with_article(nouns: Sequence[str]) -> list[str]:
    return [f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in nouns]


# Groups of forms, each with the words that are put into them.
FORMS = (
    (
        (
            "Describe {} in one sentence.",
            "Is {} a wild animal?",
            "Name two facts about {}.",
            "Name an animal similar to {}.",
            "Write a sentence about {}.",
            "Which color is {}?",
            "Write a question about {}.",
        ),
        _with_article(ANIMALS),
    ),
    (
        (
            "What is the capital of {}?",
            "On which continent is {}?",
            "Which language is spoken in {}?",
            "Name a food from {}.",
            "Name two cities in {}.",
            "Name a country near {}.",
            "Name a famous person from {}.",
            "Write a question about {}.",
            "What is {} known for?",
            "Describe {} in one sentence.",
            "Write a sentence about {}.",
        ),
        COUNTRIES,
    ),
    (
        (
            "In which country is {}?",
            "Describe {} in one sentence.",
            "What is {} known for?",
            "Name a city near {}.",
            "Write a sentence about {}.",
        ),
        CITIES,
    ),
    (
        (
            "What is {}?",
            "Explain what {} is in one sentence.",
            "Write a sentence about {}.",
            "Write a question about {}.",
            "Name two facts about {}.",
            "Name a word that has to do with {}.",
        ),
        SUBJECTS,
    ),
    (
        (
            "What is {} used for?",
            "Describe {} in one sentence.",
            "Name something similar to {}.",
            "Name a place where one finds {}.",
            "Write a sentence about {}.",
            "Write a question about {}.",
        ),
        _with_article(OBJECTS),
    ),
    (
        (
            "What does {} do?",
            "Describe the work of {} in one sentence.",
            "Write a sentence about {}.",
            "Name something that {} needs.",
        ),
        _with_article(JOBS),
    ),
    (
        (
            "What is the opposite of {}?",
            "Use the word '{}' in a sentence.",
            "Name a word that means the same as {}.",
            "Name something that is {}.",
            "Write a sentence about something that is {}.",
            "Write a question with the word '{}'.",
            "Name a noun that goes with the word '{}'.",
        ),
        WORDS,
    ),
    (
        (
            "Use the verb '{}' in a sentence.",
            "What is the past tense of '{}'?",
            "Write a question with the verb '{}'.",
            "Write a sentence with the verb '{}' in the past tense.",
            "Name a verb that means something similar to '{}'.",
        ),
        VERBS,
    ),
)
# Held-out questions, none of which is among `text_questions`, with words of which a right answer has at least one.
HELD_OUT = {
    "What is the capital of the Netherlands?": ("Amsterdam",),
    "What is 8 plus 6?": ("14", "fourteen"),
    "What is the opposite of dry?": ("wet", "moist", "damp"),
    "What does a photographer do?": ("photo", "picture", "image", "camera"),
    "What is a hammer?": ("tool",),
    "Explain what snow is in one sentence.": ("ice", "frozen", "water", "precipitation"),
    "What does a parrot eat?": ("seed", "fruit", "nut", "insect", "vegetable"),
    "On which continent is South Korea?": ("Asia",),
    "Use the word 'thick' in a sentence.": ("thick",),
    "Name two facts about the Earth.": ("planet", "Sun", "water", "orbit", "largest"),
    "Where does a squirrel live?": ("tree", "forest", "wood", "nest"),
    "Which tools does a potter use?": ("wheel", "clay", "kiln", "knife"),
    "How many days does a week have?": ("7", "seven"),
    "Name three colors.": ("red", "blue", "green", "yellow"),
    "What is the largest animal on Earth?": ("whale",),
    "Write a sentence about a bicycle.": ("bicycle", "bike"),
    "Who wrote Romeo and Juliet?": ("Shakespeare",),
    "How do I boil an egg?": ("water", "boil"),
    "Why do people exercise?": ("health", "fit", "strength", "weight"),
    "Give me an idea for a birthday present.": ("gift", "book", "present", "card"),
}


def text_questions() -> list[str]:
    """All different questions, in a fixed order: 2,681 of them."""
    return list(dict.fromkeys(_questions()))


def _questions() -> Iterator[str]:
    yield from GENERAL
    for forms, words in FORMS:
        for form, word in product(forms, words):
            yield form.format(word)
    for first, second in product(range(2, 14), range(2, 14)):
        if first + second != 14:  # a held-out sum
            yield f"What is {first} plus {second}?"
    for first, second in product(range(11, 20), range(2, 9)):
        yield f"What is {first} minus {second}?"
    for first, second in product(range(2, 10), range(2, 10)):
        yield f"What is {first} times {second}?"
