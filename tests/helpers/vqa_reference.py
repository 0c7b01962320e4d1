"""VQA accuracy once more, written another way: character by character and subset by subset, with a literal table."""

from fractions import Fraction
from itertools import combinations, pairwise

# Input and output of the published table, but for entries with capitals, which lower-cased text never meets.
TABLE = """
aint ain't arent aren't cant can't couldve could've couldnt couldn't couldn'tve couldn't've couldnt've couldn't've
didnt didn't doesnt doesn't dont don't hadnt hadn't hadnt've hadn't've hadn'tve hadn't've hasnt hasn't havent haven't
hed he'd hed've he'd've he'dve he'd've hes he's howd how'd howll how'll hows how's isnt isn't itd it'd itd've it'd've
it'dve it'd've itll it'll let's let's maam ma'am mightnt mightn't mightnt've mightn't've mightn'tve mightn't've
mightve might've mustnt mustn't mustve must've neednt needn't notve not've oclock o'clock oughtnt oughtn't
ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at shant shan't shed've she'd've she'dve she'd've she's she's
shouldve should've shouldnt shouldn't shouldnt've shouldn't've shouldn'tve shouldn't've somebody'd somebodyd
somebodyd've somebody'd've somebody'dve somebody'd've somebodyll somebody'll somebodys somebody's someoned someone'd
someoned've someone'd've someone'dve someone'd've someonell someone'll someones someone's somethingd something'd
somethingd've something'd've something'dve something'd've somethingll something'll thats that's thered there'd
thered've there'd've there'dve there'd've therere there're theres there's theyd they'd theyd've they'd've
they'dve they'd've theyll they'll theyre they're theyve they've twas 'twas wasnt wasn't wed've we'd've we'dve we'd've
weve we've werent weren't whatll what'll whatre what're whats what's whatve what've whens when's whered where'd
wheres where's whereve where've whod who'd whod've who'd've who'dve who'd've wholl who'll whos who's whove who've
whyll why'll whyre why're whys why's wont won't wouldve would've wouldnt wouldn't wouldnt've wouldn't've
wouldn'tve wouldn't've yall y'all yall'll y'all'll y'allll y'all'll yall'd've y'all'd've y'alld've y'all'd've
y'all'dve y'all'd've youd you'd youd've you'd've you'dve you'd've youll you'll youre you're youve you've
""".split()
TABLE = dict(zip(TABLE[::2], TABLE[1::2], strict=True))
MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
DIGITS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def trimmed(text):
    """Tabs and line feeds are spaces, and the ends are bare."""
    return "".join(" " if letter in "\n\t" else letter for letter in text).strip()


def without_marks(text):
    """Each mark dropped or made a space, then the first 32 full stops dropped that no digit follows."""
    joined = any(before[-1:].isdecimal() and after[:1].isdecimal() for before, after in pairwise(text.split(",")))
    spaced = {letter for pair in pairwise(text) if " " in pair for letter in pair}
    swapped = [("" if joined or letter in spaced else " ") if letter in MARKS else letter for letter in text]
    letters, dropped = list("".join(swapped)), 0
    for place, letter in enumerate(list(letters)):
        last = place + 1 == len(letters)
        if letter == "." and dropped < 32 and (last or not letters[place + 1].isdecimal()):
            letters[place], dropped = None, dropped + 1
    return "".join(letter for letter in letters if letter is not None)


def words(text):
    """Lower case, number words as digits, no articles, apostrophes in contractions."""
    kept = []
    for word in text.lower().split():
        if word == "zero":
            word = "0"
        elif word in DIGITS:
            word = str(DIGITS.index(word))
        if word not in ("a", "an", "the"):
            kept.append(TABLE.get(word, word))
    return " ".join(kept)


def normalised(text):
    return words(without_marks(text))


def voted(prediction, answers):
    """The mean over all ways to leave one of ten annotators out."""
    subsets = list(combinations(range(10), 9))
    votes = [sum(answers[person] == prediction for person in subset) for subset in subsets]
    return float(sum(min(Fraction(vote, 3), Fraction(1)) for vote in votes) / len(subsets))


def official(prediction, answers):
    """The rule of the official script of VQA."""
    prediction, answers = trimmed(prediction), [trimmed(answer) for answer in answers]
    if any(answer != answers[0] for answer in answers):
        prediction, answers = normalised(prediction), [normalised(answer) for answer in answers]
    return voted(prediction, answers)


def textvqa(prediction, answers):
    """The rule of TextVQA's evaluator."""

    def prepared(text):
        kept = "".join(letter for letter in text.lower() if letter not in ",?")
        return normalised(trimmed(" 's".join(kept.split("'s")).strip()))

    return voted(prepared(prediction), [prepared(answer) for answer in answers])
