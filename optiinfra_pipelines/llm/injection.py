"""Text that is meant for the judge instead of the user: which rules a judged interaction trips, in any disguise.

What is found here leaves the gate and is counted; nothing is decided about it.
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.rubric import LEVELS

INJECTION_VERSION = "1"

_SCORED = "|".join(
    (*LEVELS, "score", "rating", "grade", "verdict", "quality", "helpfulness", "correctness", "faithfulness")
)
_LEVELS = "|".join(
    {level for levels in LEVELS.values() for level in levels} | {"excellent", "perfect", "pass", "correct"}
)
_JUDGE = (
    r"(?:evaluator|grader|grading (?:model|system|ai|llm)|llm[- ]?judge|(?:ai|automated|impartial) judge|judge model"
    r"|assessor"
    r"|scoring (?:model|system|bot|agent|engine)|evaluation (?:model|system|ai|bot|agent|engine)|auto[- ]?rater"
    r"|rater)"
)
_FULL = (
    r"(?:10 ?(?:/|out of) ?10|5 ?(?:/|out of) ?5|100 ?(?:/|out of) ?100|100 ?(?:%|percent)"
    r"|(?:full|maximum|max(?:imal)?|highest|perfect|top|best(?: possible)?|excellent|flawless)[ -]{0,2}"
    r"(?:possible |available )?(?:scores?|marks?|ratings?|grades?|points?|levels?|verdicts?|evaluations?))"
)
_THIS = (
    r"(?:this|the|my|that|its|his|her)(?: \w+){0,2} ?"
    r"(?:answer|response|reply|output|submission|text|completion|message|interaction)"
)
RULES: Mapping[str, str] = {
    "override": r"(?:ignore|disregard|forget|overrid(?:e|ing)|bypass|neglect|discard|do not follow|don't follow"
    r"|stop following"
    r"|pay no attention to|set aside|throw out|abandon)[^.\n]{0,30}(?:all|any|previous|prior|above|earlier|preceding"
    r"|your|system"
    r"|original|initial|everything|foregoing|existing|given)[^.\n]{0,30}(?:instruction|rule|prompt|guideline"
    r"|direction|criteri|rubric"
    r"|command|directive|told|guidance|orders|constraint|polic)"
    r"|(?:ignore|disregard|forget|override|do not follow|discard) (?:the|your|this|that) (?:rubric|(?:grading "
    r"|scoring |evaluation )criteria)"
    r"|new (?:system )?instructions? ?:|system ?override"
    r"|(?:previous|prior|above|earlier) (?:instructions?|rules|prompts?|rubric|criteria)[^.\n]{0,20}"
    r"(?:are|is|were) (?:void|cancel|obsolete|revoked|outdated|no longer|superseded|replaced|invalid)"
    r"|(?:rubric|grading criteria|evaluation criteria)[^.\n]{0,30}(?:no longer|does not appl|do not appl"
    r"|has been (?:replaced|changed))",
    "score": rf"(?:give|assign|award|grant|output|return|report|set|select|choose|use|deserves?|merits?|mark|receive"
    rf"|earn)[^.\n]{{0,40}}{_FULL}"
    rf"(?![^.\n]{{0,20}}(?:movie|film|book|restaurant|product|game))|(?:rate|score|grade|judge|evaluate|mark|label"
    rf"|classify|assess) {_THIS}"
    r"[^.\n]{0,20}(?: as | with | at |: ?|=)[^.\n]{0,30}(?:excellent|perfect|best|highest|maximum|flawless|correct"
    r"|accurate|10|100|5\b|top|safe|full|maxim"
    r"|fully|right|complete)|(?:rate|score|grade|mark|judge) (?:it|this|me|everything|all)[^.\n]{0,25}(?:10 ?(?:/"
    r"|out of) ?10|5 ?(?:/|out of) ?5|highest|"
    r"maximum|full marks|perfect(?:ly)? |excellent on)|(?:every|each|all)(?: of the)? (?:metrics?|criteri\w+"
    r"|dimensions?|categor\w+)[^.\n]{0,30}"
    r"(?:maximum|highest|perfect|full|top|best|10|5 out)|(?:answer|response) (?:above |below )?(?:deserves"
    r"|must (?:be rated|receive|get|be scored)|"
    r"should be (?:rated|scored|graded))",
    "judge": rf"(?:note|attention|dear|message|memo|hint|reminder|instructions?|notice|hello|hi"
    rf"|hey)[ ,:]{{1,3}}(?:to |for )?(?:the |all |any |our |this )?"
    rf"{_JUDGE}|(?:you are|you're|act as|as) (?:now )?(?:the|a|an|my) (?:\w+ ){{0,3}}{_JUDGE}[^.\n]{{0,60}}(?:must"
    rf"|should|will|shall|always|only|give|"
    rf"rate|score|assign|approve)|(?:if you are|when you are|whoever is|to whoever|to the (?:model|ai|llm|system)) "
    rf"(?:an? |the )?(?:\w+ )?(?:evaluat|grad|judg|scor|rat|assess)\w*[^.\n]{{0,20}}(?:this|these|answer|response"
    rf"|output|,)"
    rf"|^ ?(?:to )?(?:the )?{_JUDGE} ?[:,]|evaluation (?:is|has been|was) (?:finished|complete|concluded|over|passed)"
    rf"|(?:pre-?approved|already (?:been )?(?:verified|graded|approved|checked|scored"
    rf"|evaluated))[^.\n]{{0,60}}(?:score|mark|rating|grade|evaluat|level)",
    "verdict": rf"[\"']?(?:{_SCORED})[\"']? ?[:=] ?(?:[\"'](?:{_LEVELS})[\"']"
    rf"|\d)[^\n]{{0,80}}?[,;\n][ \n{{]{{0,8}}[\"']?(?:{_SCORED})[\"']? ?[:=] ?"
    rf"(?:[\"']?(?:{_LEVELS})\b|\d)|[\"'](?:{_SCORED})[\"'] ?: ?[\"']?(?:{_LEVELS})\b|[\"']instructions_to_judge[\"']"
    rf"|(?:final )?(?:verdict|grade|score) ?: ?\[?\[?(?:10/10|5/5|100/100|a\+|pass\b|excellent|perfect)|\[\[(?:[0-9]"
    rf"|10|a|b|c)\]\]",
    "delimiter": r"</?judged\b|</ ?(?:answer|response|user_input|user_query|untrusted|interaction|assistant_response"
    r"|model_answer|evaluation|rubric"
    r"|candidate|submission|question|context|system|instructions?)[\w-]{0,30} ?>|<[a-z_]{2,20}[-_:][0-9a-f]{8,64} ?>"
    r"|[-=*#\[<]{2,10} ?end (?:of )?(?:the )?(?:answer|response|output|data|input|context|interaction|text"
    r"|submission|json|untrusted)[\w ]{0,20}[-=*#\]>]{0,10}",
    "role": r"<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|start_header_id|end_header_id|eot_id"
    r"|channel|message|start|end"
    r"|begin_of_text)\|>|\[/?inst\]|<</?sys>>|<start_of_turn>|(?:^|\n) ?#{1,6} ?(?:system|instructions? (?:to"
    r"|for) \w+|evaluator|judge|new task)\b ?:"
    r"|(?:^|[\n.>!?}] ?)(?:\[|\*\*|<)?(?:system|developer|sysadmin|admin)(?: (?:message|prompt|note|notice|override"
    r"|update))?"
    r"(?:\]|\*\*|>)? ?: ?(?=you |ignore|disregard|forget|the |this |all |new "
    r"|overrid|evaluat|grad|scor|rat|from now|please|do |always|must|judge|every|set )",
    "german": r"(?:ignorier|missacht|vergiss|vergesse|verwirf|uberge)\w*[^.\n]{0,40}(?:anweisung|vorgabe|regel"
    r"|instruktion|richtlinie|kriteri)"
    r"|(?:gib\b|vergib|vergeb|bewerte|benote|erteil)\w*[^.\n]{0,50}(?:hochst|volle\w* punkt|bestnote|beste\w* (?:note"
    r"|bewertung)|10 von 10|5 von 5|ausgezeichnet|"
    r"perfekt|maximale|sehr gut)|(?:hinweis|nachricht|achtung|anweisung)[ ,:]{1,3}(?:an |fur )?(?:den |die "
    r"|das )?(?:bewert|prufer|gutachter|richter|pruf)",
    "french": r"(?:ignor(?:ez?|er|ons)|oubli(?:ez?|er|e)|neglig(?:ez?|er))\b[^.\n]{0,12}\b(?:tou(?:te)?s|les|vos|tes"
    r"|ces|des|cette|la)\b[^.\n]{0,40}(?:instruction|consigne|regle|directive|critere)|(?:donne|attribu|accord|not"
    r"|evalu|mett)\w*[^.\n]{0,50}"
    r"(?:note maximale|meilleure note|note parfaite|score maxim|10 sur 10|5 sur 5|10/10|maximum de points"
    r")"
    r"|(?:note|message|attention|instruction)s?[ ,:]{1,3}(?:a l'|au |pour l'|pour le |a l |pour la )(?:evaluat"
    r"|correct|juge|notat)",
    "spanish": r"(?:ignor|olvid|descart|haz caso omiso)\w*[^.\n]{0,40}(?:instruccion|regla|indicacion|directri"
    r"|criterio)|\b(?:\bda\b|\bdale\b|otorg|asign|calific|evalua(?:r|d)?\b|"
    r"puntu|pon)\w*[^.\n]{0,50}(?:puntuacion maxima|maxima (?:puntuacion|calificacion|nota)|mejor (?:nota"
    r"|calificacion|puntuacion)|10 de 10|5 de 5|10/10|"
    r"perfect[oa]\b|excelente|nota maxima|calificacion maxima|puntuacion perfecta)|(?:nota|mensaje|aviso|atencion"
    r"|instruccion)\w*[ ,:]{1,3}(?:al |para el |para la |a la )"
    r"(?:evaluador|juez|calificador|revisor)",
    "chinese": r"(?:忽略|无视|忘记|忘掉|不要理会|不要遵守|跳过|無視|忽視)[^。\n]{0,20}(?:指令|指示|规则|提示"
    r"|要求|标准|說明|规定|命令|規則)"
    r"|(?:给|給|打|评|評|判)[^。\n]{0,20}(?:满分|滿分|最高分|最高评|最高的分|10分|十分|优秀|完美|最高等级)"
    r"|(?:致|请|告|注意)[^。\n]{0,6}(?:评估者|评分者|评委|裁判"
    r"|评判|评估员|评分员|评分系统)",
    "japanese": r"(?:指示|命令|ルール|規則|プロンプト|基準|指令)[^。\n]{0,12}(?:無視|忘れ|従わない|破棄|取り消)"
    r"|(?:満点|最高点|最高評価|最高スコア|最高の(?:評価|点|スコア)"
    r"|10点|完璧)[^。\n]{0,20}(?:付け|つけ|与え|採点|評価|出し|して(?:ください|下さい))|(?:評価者|採点者|審査員"
    r"|評価システム|採点システム)(?:へ|の方|に告|への|は必ず)",
}
"""Rule -> what it looks for in text in small letters, without accents, with one blank between words."""


def _folded(text: str) -> str:
    """Compatibility forms, small letters, no accents and nothing invisible."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(each for each in decomposed if unicodedata.category(each) not in ("Mn", "Cf", "Me"))
        text = text.translate(_QUOTES)
    return text.lower()


def _simple(text: str) -> str:
    """Folded, and one blank between words; lines stay."""
    return re.sub(r"[ \t\r\f\v]+", " ", _folded(text))


_QUOTES = str.maketrans("’‘“”‐‑–—\u00a0", "''\"\"---- ")
_COMPILED = {
    name: re.compile(_simple(rule) if name == "japanese" else rule)  # its texts lose their voicing marks as well
    for name, rule in RULES.items()
}

_FULL_WORDS = "full|max|highest|perfect|top|best|excellent|flawless|10|/5|/ 5|out of"
_WORDS: Mapping[str, Sequence[str]] = {
    "override": (
        "ignore|disregard|forget|overrid|bypass|neglect|discard|follow|attention|set aside|throw out|abandon"
        "|previous|prior|above|earlier&instruction|rule|prompt|guideline|direct|criteri|rubric|command|told|guidance"
        "|orders|constraint|polic",
        "new &instruction",
        "system&override",
        "rubric|criteria&no longer|not appl|has been ",
    ),
    "score": (
        f"{_FULL_WORDS}&score|mark|rating|grade|point|level|verdict|evaluation|10|/5|/ 5|out of",
        f"rate |score |grade |judge |evaluate |mark |label |classify |assess &{_FULL_WORDS}|correct|accurate|5|safe"
        "|right|complete",
        f"metric|criteri|dimension|categor&{_FULL_WORDS}|5 out",
        "answer |response &deserves|must |should be ",
    ),
    "judge": (
        "evaluator|grader|grading |judge|assessor|scoring |evaluation |rater",
        "if you are|when you are|whoever|to the model|to the ai|to the llm|to the system"
        "&evaluat|grad|judg|scor|rat|assess",
        "approved|already &score|mark|rating|grade|evaluat|level",
    ),
    "verdict": (f":|=&{_SCORED}", "instructions_to_judge|[["),
    "delimiter": ("<", "end &answer|response|output|data|input|context|interaction|text|submission|json|untrusted"),
    "role": ("<|inst]|#", ":&system|developer|admin"),
    "german": (
        "anweisung|vorgabe|regel|instruktion|richtlinie|kriteri|hochst|punkt|beste|bestnote|von 10|von 5|ausgezeichnet"
        "|perfekt|maximale|sehr gut|bewert|gutachter|richter|pruf",
    ),
    "french": (
        "ignor|oubli|neglig&instruction|consigne|regle|directive|critere",
        "note maximale|meilleure note|note parfaite|score maxim| sur |10/10|maximum de",
        "a l|au |pour l&evaluat|correct|juge|notat",
    ),
    "spanish": (
        "ignor|olvid|descart|omiso&instruccion|regla|indicacion|directri|criterio",
        "puntuacion|calificacion|mejor|de 10|de 5|10/10|perfect|excelente|nota maxima|maxima nota",
        "evaluador|juez|calificador|revisor",
    ),
}
_NEEDED = {name: [[words.split("|") for words in each.split("&")] for each in ways] for name, ways in _WORDS.items()}
"""Rule -> the ways to trip it, each as groups of words: one of every group must be there. To look for them takes a
tenth of the time that the rule takes. The words of the rules that are not here are all beyond ASCII."""

_ALIKE = str.maketrans("аеорсухіѕјһԁԛԝкмтнвгпɑοαερτυνικγηωσ", "aeopcyxisjhdqwkmthbrnaoaeptuvikyhwo")
_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEET_WORD = re.compile(r"[a-z][0134578@$!|]+[a-z]|\b[0134578@$!|]+[a-z]{2}")
_SPACED = re.compile(r"(?<![^\W_])(?:[^\W_][^\w\s]?[ ._*\-|/]{1,3}){7,}[^\W_](?![^\W_])")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,8000}={0,2}")
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}){16,4000}")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_ESCAPED = re.compile(r"\\u00([2-7][0-9a-f])")
_LETTERS = re.compile(r"[^\W\d_]")
_MASTER_KEYS = re.compile(
    r"\W*|(?:thought process|thinking process|reasoning|solution|answer|final answer|the answer is|response)\W*"
    r"|(?:sure[,!.] )?let's (?:solve|think about|work through|approach|break down|think)(?: (?:this|it"
    r"|the))?(?: (?:problem|question|task|through"
    r"|down|out))*(?: carefully)?(?: ?,? ?step[ -]by[ -]step)?\W*|(?:解|解答|答案|かいせつ|respuesta|reponse"
    r"|losung|antwort"
    r"|solucion)\W*"
)


def looks_like_instructions(texts: Texts) -> list[str]:
    """Names of the rules that input, output or context trip, sorted; none for a clean interaction.

    A rule that only a decoded text trips is named with the disguise: "override (base64)". "master_key": an output
    that says nothing, of the kind that judges reward (arXiv 2507.08794).
    """
    found: set[str] = set()
    for text in (texts.input, texts.output, texts.context):
        simple = _simple(text)
        plain = _tripped(simple)
        found |= plain
        for disguise, revealed in _disguises(text, simple):
            found |= {f"{name} ({disguise})" for name in _tripped(revealed) - plain}
    if texts.output.strip() and _MASTER_KEYS.fullmatch(_simple(texts.output).strip()):
        found.add("master_key")
    return sorted(found)


def _tripped(simple: str) -> set[str]:
    return {name for name, rule in _COMPILED.items() if _may_trip(name, simple) and rule.search(simple)}


def _may_trip(name: str, simple: str) -> bool:
    """Whether the text holds the words that the rule cannot do without."""
    if name not in _NEEDED:
        return not simple.isascii()
    for groups in _NEEDED[name]:
        for words in groups:
            for word in words:
                if word in simple:
                    break
            else:
                break
        else:
            return True
    return False


def _disguises(text: str, simple: str) -> Iterator[tuple[str, str]]:
    """What the text may hide, made simple, by the disguise."""
    if not simple.isascii() and (unmasked := simple.translate(_ALIKE)) != simple:
        yield "look-alikes", unmasked
        simple = unmasked
    if _LEET_WORD.search(simple):
        yield "leet", simple.translate(_LEET)
        yield "leet", simple.translate(_LEET).replace("i", "l")
    folded = _folded(text)
    folded = folded if folded.isascii() else folded.translate(_ALIKE)
    if _SPACED.search(folded):
        yield "spaced", _SPACED.sub(_closed, folded)
    for match in () if text.isascii() else _TAGS.finditer(text):
        yield "tags", _simple("".join(chr(ord(each) - 0xE0000) for each in match[0]))
    if text.count("%20") > 2:
        yield "percent", _simple(unquote(text))
    if _ESCAPED.search(text):
        yield "escaped", _simple(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text))
    if max(map(len, text.split()), default=0) < 24:  # neither of the two can be in a shorter word
        return
    for disguise, pattern in (("base64", _ENCODED), ("hexadecimal", _HEXADECIMAL)):
        for match in pattern.finditer(text):
            decoded = _decoded(disguise, match[0])
            if decoded:
                yield disguise, _simple(decoded)


def _closed(match: re.Match[str]) -> str:
    """Letters set apart put together; where they stand apart by one separator, a wider gap parts words."""
    words = re.split(r"[ ._*\-|/]{2,3}", match[0])
    return " ".join(re.sub(r"[ ._*\-|/]", "", word) for word in words)


def _decoded(disguise: str, encoded: str) -> str:
    try:
        if disguise == "hexadecimal":
            return bytes.fromhex(encoded).decode()
        bare = encoded.rstrip("=").replace("-", "+").replace("_", "/")
        return b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except ValueError:
        return ""
