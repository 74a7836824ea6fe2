"""The grammar of the demo: short commands for a household assistant, 269 words in all."""

import random

ROOMS = [
    "kitchen",
    "bedroom",
    "bathroom",
    "hallway",
    "garage",
    "garden",
    "office",
    "attic",
    "cellar",
    "nursery",
    "balcony",
    "library",
]
DEVICES = [
    "lamp",
    "heater",
    "fan",
    "radio",
    "oven",
    "kettle",
    "television",
    "speaker",
    "curtain",
    "camera",
    "alarm",
    "printer",
    "shower",
    "fireplace",
]
COLORS = ["red", "blue", "green", "yellow", "white", "purple", "orange", "pink", "brown"]
DIGITS = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
NAMES = [
    "anna",
    "peter",
    "maria",
    "david",
    "sophie",
    "thomas",
    "laura",
    "michael",
    "julia",
    "robert",
    "emma",
    "victor",
]
FOODS = [
    "milk",
    "bread",
    "butter",
    "cheese",
    "eggs",
    "apples",
    "rice",
    "coffee",
    "tea",
    "sugar",
    "flour",
    "onions",
    "tomatoes",
    "potatoes",
    "chicken",
    "fish",
    "lemons",
    "honey",
    "salt",
    "pepper",
    "carrots",
    "bananas",
]
CITIES = [
    "london",
    "paris",
    "berlin",
    "rome",
    "madrid",
    "oslo",
    "tokyo",
    "seoul",
    "boston",
    "chicago",
    "vienna",
    "dublin",
]
GENRES = ["jazz", "rock", "classical", "folk", "dance", "piano", "guitar"]
UNITS = ["seconds", "minutes", "hours"]
EVENTS = ["meeting", "dentist", "party", "concert", "lesson", "dinner", "breakfast", "lunch", "flight"]
SIZES = ["small", "large", "heavy", "empty", "old", "new", "wooden", "metal"]
OBJECTS = ["box", "bottle", "chair", "table", "book", "bag", "key", "umbrella", "basket", "blanket"]
PLACES = ["under", "behind", "beside", "above", "near"]

TEMPLATES = (
    "turn on the {device} in the {room}",
    "turn off the {device} in the {room}",
    "switch the {room} light to {color}",
    "make the {room} {degree} degrees {change}",
    "set the {device} to {number} percent",
    "set a timer for {number} {unit}",
    "wake me at {hour} {minute} on {weekday}",
    "remind {name} about the {event} on {weekday}",
    "what is the weather in {city} on {weekday}",
    "how far is it from {city} to {city2}",
    "add {number} {food} to my shopping list",
    "buy {food} and {food2} for {name}",
    "call {name} after the {event}",
    "send a message to {name} and say i am late",
    "play some {genre} music in the {room}",
    "stop the music please",
    "open the window in the {room}",
    "close every door before {hour} {half}",
    "put the {size} {object} {place} the {object2}",
    "where did {name} leave the {color} {object}",
    "is the {device} still running",
    "book a table for {digit} people in {city}",
    "move the {event} to the {ordinal} of {month}",
    "when is the next train to {city}",
    "read the last message from {name}",
    "the {size} {object} is in the {room}",
    "do we have enough {food} for {event}",
    "tell {name} that {name2} will arrive in {number} {unit}",
    "lock the {color} door and start the {device}",
    "good {daytime} what should i cook today",
    "{name} wants {color} {food} from the {ordinal} shop",
    "never mind",
    "yes please",
    "cancel the {event}",
)

SLOTS = {
    "device": DEVICES,
    "room": ROOMS,
    "color": COLORS,
    "degree": DIGITS,
    "change": ["warmer", "colder"],
    "unit": UNITS,
    "hour": [*DIGITS, *TEENS[:3]],
    "minute": ["o'clock", "fifteen", "thirty", "forty five"],
    "half": ["tonight", "tomorrow"],
    "weekday": WEEKDAYS,
    "name": NAMES,
    "name2": NAMES,
    "event": EVENTS,
    "city": CITIES,
    "city2": CITIES,
    "food": FOODS,
    "food2": FOODS,
    "genre": GENRES,
    "size": SIZES,
    "object": OBJECTS,
    "object2": OBJECTS,
    "place": PLACES,
    "digit": DIGITS,
    "ordinal": ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"],
    "month": MONTHS,
    "daytime": ["morning", "evening", "afternoon"],
}


def spoken_number(rng: random.Random) -> str:
    """A spoken number from two to ninety nine, each of the three shapes (digit, teen, tens) equally often."""
    shape = rng.randrange(3)
    if shape == 0:
        return rng.choice(DIGITS)
    if shape == 1:
        return rng.choice(TEENS)
    tens = rng.choice(TENS)
    return tens if rng.random() < 0.3 else f"{tens} {rng.choice(DIGITS)}"


def sample_command(rng: random.Random) -> str:
    """One command in lower case, without punctuation, of 2 to 10 words."""
    slots = {name: rng.choice(choices) for name, choices in SLOTS.items()}
    return rng.choice(TEMPLATES).format(number=spoken_number(rng), **slots)


def vocabulary() -> frozenset[str]:
    """Every word that `sample_command` can say."""
    words = {word for template in TEMPLATES for word in template.split() if "{" not in word}
    for choices in [*SLOTS.values(), DIGITS, TEENS, TENS]:
        words.update(word for choice in choices for word in choice.split())
    return frozenset(words)
