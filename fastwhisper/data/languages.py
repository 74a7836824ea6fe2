"""Whisper's languages: their codes, their other names, and which are written without spaces."""

import re
from typing import Any, overload

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from ..errors import InputError

# Whisper writes these without spaces, even at the start of a transcription (openai-whisper, whisper/tokenizer.py).
SPACELESS_LANGUAGES = frozenset({"ja", "lo", "my", "th", "yue", "zh"})
# Scripts without spaces between words. Whisper's paper counts letters for zh, ja, th, lo and my; yue, km and bo, which
# Whisper also knows, are written in the same way.
UNSPACED_LANGUAGES = SPACELESS_LANGUAGES | {"bo", "km"}

# After each of Whisper's codes, those of ISO 639-2 and 639-3 (for a macrolanguage also its standard form), and
# two-letter codes where Whisper's differ from ISO 639-1 or where there are old ones.
_OTHER_CODES_OF = """
en eng; zh zho chi cmn; de deu ger; es spa; ru rus; ko kor; fr fra fre; ja jpn; pt por; tr tur; pl pol; ca cat;
nl nld dut; ar ara arb; sv swe; it ita; id ind in; hi hin; fi fin; vi vie; he heb iw; uk ukr; el ell gre;
ms msa may zsm; cs ces cze; ro ron rum mo mol; da dan; hu hun; ta tam; no nor nb nob; th tha; ur urd; hr hrv; bg bul;
lt lit; la lat; mi mri mao; ml mal; cy cym wel; sk slk slo; te tel; fa fas per pes prs; lv lav lvs; bn ben; sr srp;
az aze azj; sl slv; kn kan; et est ekk; mk mkd mac; br bre; eu eus baq; is isl ice; hy hye arm; ne nep npi;
mn mon khk; bs bos; kk kaz; sq sqi alb als; sw swa swh; gl glg; mr mar; pa pan; si sin; km khm; sn sna; yo yor;
so som; af afr; oc oci; ka kat geo; be bel; tg tgk; sd snd; gu guj; am amh; yi yid ydd ji; lo lao; uz uzb uzn; fo fao;
ht hat; ps pus pbt pbu; tk tuk; nn nno; mt mlt; sa san; lb ltz; my mya bur; bo bod tib; tl tgl fil; mg mlg plt;
as asm; tt tat; ln lin; ha hau; ba bak; jw jav jv; su sun
"""
_OTHER_NAMES = {
    "bangla": "bn",
    "bokmål": "no",
    "dari": "fa",
    "farsi": "fa",
    "filipino": "tl",
    "norwegian nynorsk": "nn",
    "putonghua": "zh",
    "slovene": "sl",
}
_CODES = {code: code for code in LANGUAGES}
_CODES |= {other: code for code, *others in map(str.split, _OTHER_CODES_OF.split(";")) for other in others}
_NAMES = {**TO_LANGUAGE_CODE, **_OTHER_NAMES}
# BCP 47 and the locales of POSIX: en-US, zh_Hans_CN, de_DE.UTF-8.
_TAG = re.compile(r"(?P<code>[a-z]{2,3})(?P<more>(?:[-_][a-z0-9]{1,8})+)(?:[.@].*)?")


@overload
def language_code(language: None) -> None: ...
@overload
def language_code(language: Any) -> str: ...
def language_code(language: Any) -> str | None:
    """Whisper's code of a language: `en` for `en`, `eng`, `en-US`, `English`, `US English` and `<|en|>`.

    Args:
        language (`str`, *optional*): an ISO 639-1, 639-2 or 639-3 code, a BCP 47 tag, an English name, alone or among
            other words, or Whisper's token.

    Raises:
        InputError: for anything else, or a language that Whisper does not know.
    """
    if language is None:
        return None
    code = None
    if isinstance(language, str):
        name = " ".join(language.lower().removeprefix("<|").removesuffix("|>").split())
        code = _CODES.get(name) or _NAMES.get(name) or _code_of_tag(name) or _code_of_words(name)
    if code is None:
        raise InputError(
            f"Whisper has no language {language!r}; give a code or an English name, for example en or korean"
        )
    return code


def _code_of_tag(name: str) -> str | None:
    tag = _TAG.fullmatch(name)
    if tag is None:
        return None
    code = _CODES.get(tag["code"])
    return "yue" if code == "zh" and re.match("[-_]yue", tag["more"]) else code


def _code_of_words(name: str) -> str | None:
    """For Mandarin Chinese, Brazilian Portuguese, English (UK): the first word that names a language counts."""
    return next((_NAMES[word] for word in re.findall(r"[^\W\d_]+", name) if word in _NAMES), None)
