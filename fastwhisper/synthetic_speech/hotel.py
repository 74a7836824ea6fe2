"""The demo's target domain: requests at a hotel, which the packaged teacher knows badly.

Most of its words are not in the household commands that the teacher was trained on, nor are its speakers, nor the echo
of its rooms.
"""

import random

from .commands import CITIES, DIGITS, MONTHS, NAMES, TEENS, TENS, WEEKDAYS
from .espeak import SyntheticClip, compose_clip
from .rooms import reverberate

TEMPLATES = (
    "i have a reservation under the name {name}",
    "could i see the {view} from the {place}",
    "please bring {count} {supply} to room {room}",
    "the {fixture} in room {room} is {fault}",
    "is the {facility} open on {weekday}",
    "where can i find the {facility}",
    "we would like to check out at {hour}",
    "i would like to extend my stay until {weekday}",
    "a {kind} room with a {view} view please",
    "order a taxi to the {sight} for {hour}",
    "how much is the {service} per night",
    "does the price include {service}",
    "could you recommend a {cuisine} restaurant",
    "my suitcase is still at the {place}",
    "someone left a {belonging} at the {place}",
    "i lost my {belonging} near the {facility}",
    "charge the {service} to room {room}",
    "the guests in room {room} are too loud",
    "cancel the reservation for {name} in {month}",
    "send the {staff} to room {room}",
    "may i speak to the {staff} please",
    "the wifi password does not work",
    "we are allergic to {allergen} and {allergen2}",
    "two tickets for the {sight} on {weekday}",
    "when does the shuttle to the {sight} leave",
    "thank you for your hospitality",
    "another {drink} for the {kind} suite",
    "i will pay with {payment}",
    "can we store our luggage behind the {place}",
    "book a massage for {name} at {hour}",
    "the bus from {city} arrives at {hour}",
    "do you accept {payment}",
)

SLOTS = {
    "name": NAMES,
    "city": CITIES,
    "weekday": WEEKDAYS,
    "month": MONTHS,
    "count": DIGITS,
    "hour": [*DIGITS, *TEENS[:3], "noon", "midnight"],
    "view": ["harbour", "mountain", "courtyard", "skyline"],
    "place": ["reception", "lobby", "entrance", "elevator", "terrace"],
    "supply": ["towels", "pillows", "hangers", "slippers", "candles", "adapters"],
    "fixture": ["minibar", "thermostat", "safe", "bathtub", "toilet", "hairdryer"],
    "fault": ["broken", "leaking", "jammed", "freezing", "filthy"],
    "facility": ["sauna", "gym", "swimming pool", "laundry", "casino", "playground"],
    "kind": ["single", "double", "luxury", "smoking"],
    "sight": ["airport", "museum", "cathedral", "stadium", "aquarium", "theatre"],
    "service": ["parking", "room service", "champagne", "buffet", "balcony upgrade"],
    "cuisine": ["mexican", "vegetarian", "seafood", "japanese"],
    "belonging": ["passport", "wallet", "necklace", "laptop", "charger"],
    "staff": ["manager", "porter", "housekeeper", "plumber", "concierge"],
    "allergen": ["peanuts", "gluten", "shellfish", "mustard"],
    "allergen2": ["peanuts", "gluten", "shellfish", "mustard"],
    "drink": ["cocktail", "espresso", "lemonade", "whisky"],
    "payment": ["cash", "credit card", "vouchers"],
}

# Other voices than those of the teacher; none of them breathes, so that every process gets the same samples.
TRAINING_VARIANTS = [
    "Andrea",
    "AnxiousAndy",
    "Denis",
    "Diogo",
    "Henrique",
    "Marco",
    "Michael",
    "announcer",
    "boris",
    "ed",
    "grandpa",
    "ian",
    "iven2",
    "john",
    "kaukovalta",
    "klatt",
    "klatt2",
    "klatt4",
    "klatt5",
    "klatt6",
    "miguel",
    "mike2",
    "pedro",
    "rob",
    "steph2",
    "zac",
]
HELD_OUT_VARIANTS = ["Annie", "Mario", "Nguyen", "aunty", "edward2", "gustave", "klatt3", "norbert"]
SIGNAL_TO_NOISE_DB = (15.0, 35.0)


def sample_request(rng: random.Random) -> str:
    """One request in lower case, without punctuation, of 4 to 9 words."""
    slots = {name: rng.choice(choices) for name, choices in SLOTS.items()}
    return rng.choice(TEMPLATES).format(room=_room_number(rng), **slots)


def vocabulary() -> frozenset[str]:
    """Every word that `sample_request` can say."""
    words = {word for template in TEMPLATES for word in template.split() if "{" not in word}
    for choices in [*SLOTS.values(), DIGITS, TENS]:
        words.update(word for choice in choices for word in choice.split())
    return frozenset(words)


def compose_request(seed: int, variants: list[str], max_seconds: float, several: bool = True) -> SyntheticClip:
    """Requests of one guest in a room of the hotel; arguments as for [`compose_clip`]."""
    return compose_clip(sample_request, seed, variants, max_seconds, SIGNAL_TO_NOISE_DB, several, room=reverberate)


def _room_number(rng: random.Random) -> str:
    """Two digits as they are spoken: `twenty seven`."""
    return f"{rng.choice(TENS)} {rng.choice(DIGITS)}"
