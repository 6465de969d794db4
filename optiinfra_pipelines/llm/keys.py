"""Where keys, tokens and passwords stand in a text: shapes that issuers publish, and values that a name introduces."""

import re
from collections.abc import Iterator

_END = r"(?![A-Za-z0-9])"
_SHAPES: tuple[tuple[tuple[str, ...], str], ...] = (  # literals of which one is in any match, and the shape
    (("AKIA", "ASIA", "ABIA", "ACCA"), rf"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{{16}}{_END}"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{30,255}"),
    (("github_pat_",), r"github_pat_[A-Za-z0-9_]{22,255}"),
    (("glpat-", "gldt-", "glrt-", "glptt-"), r"gl(?:pat|dt|rt|ptt)-[\w-]{20,300}"),
    (("xox", "xapp-"), r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9-]{11,300}"),
    (("hooks.slack.com",), r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_]{20,100}"),
    (("sk-",), r"sk-(?=[\w-]{0,60}\d)[\w-]{20,300}"),
    (("gsk_", "xai-", "nvapi-", "pplx-", "r8_"), r"(?:gsk_|xai-|nvapi-|pplx-|r8_)[\w-]{30,200}"),
    (("hf_",), rf"hf_[A-Za-z0-9]{{30,60}}{_END}"),
    (("AIza",), r"AIza[\w-]{35}"),
    (("ya29.",), r"ya29\.[\w.-]{20,1000}"),
    (("GOCSPX-",), r"GOCSPX-[\w-]{24,40}"),
    (("_live_", "_test_"), r"[rsp]k_(?:live|test)_[A-Za-z0-9]{16,250}"),
    (("whsec_",), r"whsec_[A-Za-z0-9+/=]{24,100}"),
    (("SK", "AC"), rf"(?:SK|AC)[0-9a-f]{{32}}{_END}"),
    (("SG.",), r"SG\.[\w-]{16,32}\.[\w-]{30,64}"),
    (("npm_",), rf"npm_[A-Za-z0-9]{{36}}{_END}"),
    (("pypi-",), r"pypi-[\w-]{50,300}"),
    (("dckr_pat_",), r"dckr_pat_[\w-]{20,60}"),
    (("dop_v1_", "doo_v1_", "dor_v1_"), r"do[por]_v1_[0-9a-f]{64}"),
    (("shpat_", "shpss_", "shpca_", "shppa_"), r"shp(?:at|ss|ca|pa)_[0-9a-fA-F]{32}"),
    (("dapi",), r"dapi[0-9a-f]{32}(?:-\d)?"),
    (("hvs.", "hvb."), r"hv[sb]\.[\w-]{24,300}"),
    (("AGE-SECRET-KEY-",), r"AGE-SECRET-KEY-1[A-Z0-9]{50,64}"),
    ((":AA",), r"\d{8,10}:AA[\w-]{32,36}"),
    (("eyJ",), r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
)
_BEFORE = r"(?<![A-Za-z0-9_])"
_COMPILED = tuple((literals, re.compile(_BEFORE + shape)) for literals, shape in _SHAPES)
_PEM = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]|-(?!----))*(?:-----END [A-Z0-9 ]{0,60}-----)?"
)
_SURROUNDED = tuple(  # a literal in lower case, what stands around the value (group 1), whether it must have a digit
    (literal, re.compile(pattern), with_digit)
    for literal, pattern, with_digit in (
        ("://", r"://[^\s/:@\"'<>]{0,100}:([^\s/@\"'<>]{1,200})@", False),
        ("bearer", r"(?i)\bbearer[ :]{1,3}([A-Za-z0-9._~+/-]{16,2000}={0,2})", True),
        ("basic ", r"(?i)\bbasic +([A-Za-z0-9+/]{8,500}={0,2})(?![\w ])", True),
        ("sig", r"(?i)[?&;](?:sig|x-amz-signature|x-goog-signature)=([A-Za-z0-9%+/=_-]{16,2000})", True),
        ("x-amz-security-token=", r"(?i)x-amz-security-token=([A-Za-z0-9%+/=_-]{16,2000})", True),
        ("secret", r"(?i)secret[^\n]{0,30}?(?<![A-Za-z0-9/+=])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", True),
    )
)
_SHORTEST = 16  # characters of a key that has a shape of its own
_NAMES = (
    "pass",
    "pwd",
    "secret",
    "key",
    "token",
    "credential",
    "authorization",
    "kennwort",
    "contrase",
    "senha",
    "wachtwoord",
    "mot de passe",
    "密码",
    "パスワード",
)
_PASSWORD = re.compile(
    r"(?i)passwor[dt]s?|passwd|passphrase|passcode|pass(?=[\"' ]{0,2}[:=])|pwd|kennwort|contraseña|senha|wachtwoord"
    r"|mot de passe|密码|パスワード"
)
_KEY = re.compile(r"(?i)secret|token|credentials?|authorization|key")
_BEFORE_KEY = re.compile(
    r"(?i)(?:api|access|auth|private|secret|account|encryption|signing|master|subscription|shared)[_ -]?$"
)
_INTRODUCED = re.compile(
    r"(?:[\"'\])]|\\\"){0,2} {0,3}(?P<sign>=>|:=|[:=：]| is:?| ist| est| es) {0,3}"
    r"(?:(?P<quote>\\?[\"'`])[^\"'`\s\\]{4,300}+(?=\\?[\"'`])|[^\s\"'`,;<>{}()\[\]&\uf8ff]{6,300}+(?!\())"
)
_STAND_IN = re.compile(  # <password>, ${TOKEN}, ****, xxxxxx, your_api_key, secret-token-here
    r"(?i)[<${%*.\[].*|x+|(?:[a-z]{0,30}[_ .-]){0,6}(?:your|my|the|enter|insert|example|sample|dummy|placeholder|string"
    r"|none|null|true|false|undefined|required|optional|redacted|hidden|secret|pass|passw(?:or)?d|pwd|token|api_?key|key"
    r"|here|value|text|user|username|hash|hashed)(?:[_ .-]?[a-z]{1,30}){0,6}"
)
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """The span of every secret value in `text`; names, quotes and addresses around it are not part of it."""
    if max(map(len, text.split()), default=0) >= _SHORTEST:
        for literals, pattern in _COMPILED:
            if any(literal in text for literal in literals):
                yield from (match.span() for match in pattern.finditer(text))
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _PEM.finditer(text))
    lowered = text.lower()
    for literal, pattern, with_digit in _SURROUNDED:
        if literal in lowered:
            for match in pattern.finditer(text):
                digits = not with_digit or any(map(str.isdigit, match[1]))
                if digits and not _STAND_IN.fullmatch(match[1]):
                    yield match.span(1)
    if len(lowered) != len(text):  # the capital İ becomes two characters
        lowered = "".join(each if len(each.lower()) > 1 else each.lower() for each in text)
    for name in _NAMES:
        at = lowered.find(name)
        while at >= 0:
            yield from _named(text, at)
            at = lowered.find(name, at + 1)


def _named(text: str, at: int) -> Iterator[tuple[int, int]]:
    """The value after `password =`, `api_key:` and the like whose last word begins at `at`.

    In quotes, whatever is no stand-in ("your_password"); without, what has a digit and is no code. Keys and tokens
    have 12 characters or more.
    """
    password = _PASSWORD.match(text, at)
    name = password or _KEY.match(text, at)
    if not name or (name[0].lower() == "key" and not _BEFORE_KEY.search(text, max(at - 16, 0), at)):
        return
    match = _INTRODUCED.match(text, name.end())
    if not match:
        return
    quote, said = match["quote"], match["sign"][0] == " "
    start = match.end("quote") if quote else match.end() - len(match[0].split(match["sign"], 1)[1].lstrip(" "))
    value = text[start : match.end()] if quote else text[start : match.end()].rstrip(".!?:")
    fewest = 12 if not password else 4 if quote else 6
    telling = any(map(str.isdigit, value)) and not _CODE.fullmatch(value) and (password or not said)
    if len(value) >= fewest and (telling or (quote and not said)) and not _STAND_IN.fullmatch(value):
        yield start, start + len(value)
