"""Texts with planted personal data and secrets, all made up with valid check digits, and texts that look alike.

For the tests of redaction and its benchmark: what is planted is known, so what survives can be counted.
"""

import json
import os
import re
import string
import unicodedata
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from random import Random
from uuid import UUID

from optiinfra_pipelines.llm.interaction import Texts

Make = Callable[[Random], str]
ALPHANUMERIC = string.ascii_letters + string.digits
FRAMES = (
    "Please write to {} today.",
    "{}",
    "My details: {}. Can you help?",
    "I sent it yesterday ({}) and nobody answered",
    "| customer | {} | open |",
    '{{"user": {{"value": "{}", "active": true}}}}',
    "Hallo, meine Daten sind {}, danke!",
    "Voici : {} ; merci d'avance.",
    "用户资料：{}。请核实。",
    "name;value\nJane;{}\n",
    "Is '{}' right?",
    "2026-11-20 10:00:01 INFO request from user=jane value={} status=200",
    "<td>{}</td>",
    "- Jane Doe, {}\n- second line",
    "Escalated at 14:30 on 3 May 2024, 2 parcels, {}\nRegards",
    "`{}`",
)


@dataclass(frozen=True)
class Planted:
    """A text of a class: what was planted, and the text without it."""

    kind: str
    value: str
    frame: str

    @property
    def text(self) -> str:
        return self.frame.replace("\0", self.value)

    def survives(self, redacted: str) -> bool:
        """Whether the value or any six characters of it in a row can still be read, separators aside."""
        core, left, around = _core(self.value), _core(redacted), _core(self.frame)
        pieces = {core[at : at + 6] for at in range(max(len(core) - 5, 1))}
        return any(piece in left and piece not in around for piece in pieces)


def _core(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKC", text).lower() if each.isalnum() or each in "@:")


def planted(kind: str, random: Random) -> Planted:
    """A text with a value of the class (a key of VALUES) in one of its formats, some in look-alike characters."""
    value = random.choice(VALUES[kind])(random)
    frame = random.choice(FRAMES)
    if kind in CONTEXTS:
        frame = frame.replace("{}", random.choice(CONTEXTS[kind]))
    elif random.random() < 0.25 and kind != "KEY":
        value = random.choice(DISGUISES)(value, random)
    return Planted(kind, value, frame.format("\0"))


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices(string.digits, k=count))


def _of(random: Random, count: int, characters: str = ALPHANUMERIC) -> str:
    """So many random characters, a digit and a letter among them."""
    return "".join(random.choices(characters, k=count - 2)) + random.choice("234567") + random.choice("abcdef")


def _shaped(shape: str) -> Make:
    """Digits for # (any), N (2-9), the rest as it stands."""
    return lambda random: "".join(
        random.choice("23456789") if each == "N" else random.choice(string.digits) if each == "#" else each
        for each in shape
    )


def _full_width(value: str, random: Random) -> str:
    return "".join(chr(ord(each) + 0xFEE0) if each.isdigit() else each for each in value)


def _zero_width(value: str, random: Random) -> str:
    at = random.randrange(1, len(value))
    return value[:at] + random.choice("\u200b\u200c\u200d\u2060\ufeff\u00ad") + value[at:]


def _other_separators(value: str, random: Random) -> str:
    return value.replace(" ", random.choice("\u00a0\u202f\u2009")).replace("-", random.choice("\u2011\u2010\u2013"))


DISGUISES = (_full_width, _zero_width, _other_separators)


def _email(random: Random) -> str:
    first, last = (
        random.choice(("jane", "o'brien", "JÜRGEN", "li", "Anna-Maria", "x")),
        random.choice(("doe", "müller", "w", "D")),
    )
    name = random.choice(
        (f"{first}.{last}", f"{first}_{last}{random.randrange(99)}", f"{first}+news", f"{last}{first}")
    )
    host = random.choice(("example", "mail.example", "sub.dept.firma-gmbh", "münchen", "xn--mnchen-3ya", "163", "q"))
    return f"{name}@{host}.{random.choice(('com', 'de', 'co.uk', 'museum', 'io', 'xn--p1ai', 'travel'))}"


def _obfuscated(random: Random) -> str:
    at = random.choice((" (at) ", "(at)", "[at]", " [at] ", "%40"))
    dot = random.choice((".", " (dot) ", "[dot]")) if at != "%40" else "."
    return f"jane.doe{random.randrange(99)}{at}example{dot}org"


def check_digit(digits: str) -> str:
    """Luhn's check digit of the digits."""
    total = sum(sum(divmod(int(each) * (2 - at % 2), 10)) for at, each in enumerate(reversed(digits)))
    return str(-total % 10)


_CARDS = (  # first digits, length, groups as printed
    *((start, 16, (4, 4, 4, 4)) for start in ("4", "51", "2345", "6011", "3530", "2202", "5018", "65")),
    *(("34", 15, (4, 6, 5)), ("37", 15, (4, 6, 5)), ("36", 14, (4, 6, 4))),
    *(("4", 13, (4, 3, 3, 3)), ("62", 19, (4, 4, 4, 4, 3))),
)


def _card(random: Random) -> str:
    start, length, groups = random.choice(_CARDS)
    digits = start + _digits(random, length - len(start) - 1)
    digits += check_digit(digits)
    ends = [sum(groups[:number]) for number in range(len(groups) + 1)]
    parts = [digits[begin:end] for begin, end in pairwise(ends)]
    return random.choice(("", " ", "-", " - ", ".")).join(parts)


_BANKS = (("DE", "n18"), ("GB", "a4n14"), ("FR", "n10c11n2"), ("ES", "n20"), ("NL", "a4n10"), ("IT", "a1n10c12"))
_MORE_BANKS = (
    ("CH", "n5c12"),
    ("NO", "n11"),
    ("BE", "n12"),
    ("PL", "n24"),
    ("MT", "a4n5c18"),
    ("SE", "n20"),
    ("KZ", "n3c13"),
)


def _iban(random: Random) -> str:
    country, shape = random.choice((*_BANKS, *_MORE_BANKS))
    kinds = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}
    bank = "".join("".join(random.choices(kinds[of], k=int(count))) for of, count in re.findall(r"(\D)(\d+)", shape))
    check = 98 - int("".join(str(int(each, 36)) for each in f"{bank}{country}00")) % 97
    number = f"{country}{check:02}{bank}"
    grouped = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    return random.choice((number, grouped, grouped.replace(" ", "-"), number.lower()))


def _ssn(random: Random) -> str:
    area = random.choice((random.randrange(1, 666), random.randrange(667, 900)))
    separator = random.choice("-- ")
    return f"{area:03}{separator}{random.randrange(1, 100):02}{separator}{random.randrange(1, 10000):04}"


def _ip4(random: Random) -> str:
    address = ".".join(str(random.randrange(1, 255)) for _ in range(3))
    return f"{random.choice((10, 172, 192, 203, 85, 8, 223))}.{address}"


def _ip6(random: Random) -> str:
    first = random.choice((0x2001, 0x2A02, 0xFE80, 0xFD12, 0x2606)) << 112
    low = random.getrandbits(random.choice((16, 64, 112)))
    address = IPv6Address(first | low)
    return random.choice((address.compressed, address.exploded, address.compressed.upper()))


PHONES = (
    *("+1 N## N## ####", "+1-N##-N##-####", "+1 (N##) N##-####", "+1N##N##5###", "+1.N##.N##.####", "(N##) N##-####"),
    *("N##-N##-####", "N##.N##.####", "1-N##-N##-####", "1 (N##) N##-####", "N2# N## ####", "(N##)N##-####"),
    *("N##-N##-#### x12#", "N##-N##-#### ext. 4#"),
    *("+44 20 7### ####", "+44 (0)20 7### ####", "+447N00 ######", "020 7### ####", "0161 4## ####", "07N00 ######"),
    *("07N00 ### ###", "(020) 7### ####", "(01632) 96####", "01632 96####", "0044 20 7### ####"),
    *("+49 30 N######", "+49 (0) 30 / N######", "+49 17# N######", "+49301######", "0049 30 N######", "030 N######"),
    *(
        "030/N######",
        "0171-N######",
        "0171 N## ## ##",
        "089 / N## ###-##",
        "(030) N######",
        "0#51 N####-0".replace("#", "2", 1),
    ),
    *("+33 1 N# ## ## ##", "+33N########", "01 N# ## ## ##", "06.N#.##.##.##", "06-N#-##-##-##", "0033 6 N# ## ## ##"),
    *(
        "+34 6## ## ## ##",
        "6## ## ## ##",
        "91 N## ## ##".replace("91 N##", "91 N##"),
        "+39 06 N### ####",
        "06 N### ####",
    ),
    *("+31 6 N#######", "06-N#######", "+41 44 N## ## ##", "044 N## ## ##", "+43 664 N######", "0664 N######"),
    *("+81 90-N###-####", "03-N###-####", "+86 138 #### ####", "138 #### ####", "138-####-####", "+91 9#### #####"),
    *(
        "+55 11 9####-####",
        "(11) 9####-####",
        "+61 4## ### ###",
        "0412 ### ###",
        "+7 (9##) N##-##-##",
        "+353 1 N## ####",
    ),
)


def _private_key(random: Random) -> str:
    kind = random.choice(("RSA ", "", "EC ", "OPENSSH ", "ENCRYPTED "))
    body = b64encode(random.randbytes(240)).decode()
    lines = random.choice(("\n", "\\n")).join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def _web_token(random: Random) -> str:
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps({"sub": _digits(random, 10), "name": "Jane"}))
    encoded = [urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, _of(random, 43)])


def _prefixed(prefix: str, count: int, characters: str = ALPHANUMERIC) -> Make:
    return lambda random: prefix + _of(random, count, characters)


_UPPER = string.ascii_uppercase + string.digits
KEYS: tuple[Make, ...] = (
    *(lambda random, each=each: each + "".join(random.choices(_UPPER, k=16)) for each in ("AKIA", "ASIA")),
    *(_prefixed(each, 36) for each in ("ghp_", "gho_", "ghs_", "npm_", "dckr_pat_")),
    *(_prefixed(each, 82) for each in ("github_pat_11", "pypi-AgEIcHlwaS5vcmc")),
    *(_prefixed(each, 20) for each in ("glpat-", "sk-", "sk_live_", "rk_live_", "sk_test_")),
    *(
        _prefixed(each, 48)
        for each in ("sk-", "sk-proj-", "sk-ant-api03-", "gsk_", "ya29.a0", "xoxb-123456789012-", "xoxp-")
    ),
    *(_prefixed(each, 34) for each in ("hf_", "GOCSPX-", "whsec_", "hvs.CAES", "xai-", "nvapi-")),
    *(_prefixed(each, 32, "0123456789abcdef") for each in ("SK", "AC", "dapi", "shpat_")),
    _prefixed("AIza", 35),
    _prefixed("dop_v1_", 64, "0123456789abcdef"),
    lambda random: f"SG.{_of(random, 22)}.{_of(random, 43)}",
    lambda random: f"{_digits(random, 9)}:AA{_of(random, 33)}",
    lambda random: f"hooks.slack.com/services/T{_of(random, 8)}/B{_of(random, 8)}/{_of(random, 24)}",
    _private_key,
    _web_token,
)
VALUES: Mapping[str, tuple[Make, ...]] = {
    "EMAIL": (_email, _email, _obfuscated),
    "PHONE": tuple(map(_shaped, PHONES)),
    "PHONE_NAMED": tuple(
        map(_shaped, ("N##-####", "N#########", "98### #####", "612 345 ###", "+1N##N##5###", "030N######"))
    ),
    "CARD": (_card,),
    "IBAN": (_iban,),
    "SSN": (_ssn,),
    "IP": (_ip4, _ip4, _ip6),
    "KEY": KEYS,
    "KEY_NAMED": (_prefixed("", 40), _prefixed("", 32), _prefixed("", 36, _UPPER)),
    "PASSWORD": (_prefixed("", 10), _prefixed("P@", 9), _prefixed("hunter", 5), _prefixed("Tr0ub4dor&", 4)),
}
"""Class -> what makes a value of it. *_NAMED and PASSWORD are found by the words of CONTEXTS before them."""
CONTEXTS: Mapping[str, tuple[str, ...]] = {
    "PHONE_NAMED": ("phone: {}", "call me at {}", "Tel. {}", "my mobile number is {}", "WhatsApp {}", "Telefon: {}"),
    "KEY_NAMED": (
        *("api_key={}", "API key: {}", 'aws_secret_access_key = "{}"', "Authorization: Bearer {}", "VULTR_API_KEY={}"),
        *(
            "client_secret: '{}'",
            "x-api-key: {}",
            "AccountKey={}",
            "https://x.example/a?sv=2024&sig={}",
            "access_token={}",
        ),
    ),
    "PASSWORD": (
        *(
            "password: {}",
            "password={}",
            'DB_PASSWORD="{}"',
            "my password is {}",
            "Passwort: {}",
            "pwd={}",
            "passwd = '{}'",
        ),
        *("postgres://app:{}@db.internal:5432/x", "mongodb+srv://root:{}@c0.mongodb.example/test", "contraseña: {}"),
    ),
}


def _timestamp(random: Random) -> datetime:
    return datetime.fromtimestamp(random.randrange(1_000_000_000, 1_900_000_000), UTC)


_PASSWORD_TALK = (
    *("Password: must have 8 characters", "password = input('Enter it')", "password: str = None", "token: string"),
    *("api_key = os.environ['API_KEY']", 'password = "your_password"', "max_tokens=4096", "Reset your password here"),
    *('api_key="YOUR_API_KEY"', "key = get_secret_value()", "a password is required", "PASSWORD=${DB_PASSWORD}"),
)
HARMLESS: Mapping[str, Make] = {
    "date": lambda random: _timestamp(random).strftime(
        random.choice(
            ("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%y", "%Y%m%d", "%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y - %H:%M")
        )
    ),
    "time": lambda random: _timestamp(random).strftime(random.choice(("%H:%M:%S", "%Y%m%d%H%M%S", "%H:%M:%S.%f"))),
    "epoch": lambda random: str(random.randrange(10**9, 2 * 10**9) * random.choice((1, 1000, 10**6, 10**9))),
    "amount": lambda random: random.choice(
        (f"${random.randrange(10**9):,}.99", f"{random.randrange(10**6)}.50 EUR", f"1.234.{_digits(random, 3)},00 €")
    ),
    "version": lambda random: random.choice(
        ("v{}", "version {}", "Chrome/{}", "release {}", ">={}", "firmware {}")
    ).format(".".join(str(random.randrange(30)) for _ in range(random.choice((3, 4))))),
    "order": lambda random: random.choice(
        ("order #{}", "Order number {}", "invoice {}", "ticket {}", "Bestellnummer: {}")
    ).format(random.choice((_digits(random, 10), f"{_digits(random, 3)}-{_digits(random, 7)}-{_digits(random, 7)}"))),
    "product": lambda random: random.choice(("SKU {}", "part number {}", "Model: {}", "item {}")).format(
        _shaped("N##-N##-####")(random)
    ),
    "code": lambda random: f"AB-{_digits(random, 4)}-{_digits(random, 4)}",
    "isbn": lambda random: random.choice(
        ("ISBN 978-3-16-148410-{}", "ISBN: 978316148410{}", "ISBN 0-306-40615-{}")
    ).format(random.randrange(10)),
    "coordinates": lambda random: f"{random.uniform(-90, 90):.6f}, {random.uniform(-180, 180):.6f}",
    "uuid": lambda random: str(UUID(int=random.getrandbits(128), version=4)),
    "hash": lambda random: random.randbytes(random.choice((20, 32, 4))).hex(),
    "case": lambda random: f"[case {random.randbytes(4).hex()}]",
    "trace": lambda random: f"00-{random.randbytes(16).hex()}-{random.randbytes(8).hex()}-01",
    "id": lambda random: f"req_{_of(random, 24)}",
    "range": lambda random: (
        f"pp. {random.randrange(1000, 5000)}-{random.randrange(5000, 9999)} ({random.randrange(1900, 2026)})"
    ),
    "math": lambda random: (
        f"{random.randrange(10**6)} + {random.randrange(10**6)} - {random.randrange(1000)} / 3 = {random.random()}"
    ),
    "numbers": lambda random: " ".join(str(random.randrange(1000)) for _ in range(8)),
    "mac": lambda random: random.randbytes(6).hex(":"),
    "loopback": lambda random: random.choice(("127.0.0.1:8080", "0.0.0.0", "255.255.255.0", "::1", "localhost")),
    "scope": lambda random: random.choice(
        ("std::vector<int> a;", "Foo::bar()", "12:30:00::int", "a::b", "SELECT '1'::text")
    ),
    "password_talk": lambda random: random.choice(_PASSWORD_TALK),
    "decorator": lambda random: random.choice(
        ("@property", "meet @ 5pm", "C = A @ B.T", "image@2x.png", "react@18.2.0", "@jane")
    ),
    "address": lambda random: (
        f"https://www.example.com/2024/05/{random.randrange(10**7, 10**8)}/story-{random.randrange(10**8)}.html"
    ),
    "log": lambda random: (
        f"[{random.randrange(10**6)}.{_digits(random, 6)}] pid {random.randrange(99999)}: {random.randrange(10**6)} us"
    ),
    "scientific": lambda random: f"{random.random()}e-{random.randrange(20)} x {random.randrange(10**9)}",
    "ratio": lambda random: f"{random.randrange(100)}/{random.randrange(1, 100)} ({random.random():.4%})",
}
"""What a kind of harmless text looks like: numbers and names near those that are looked for."""


def harmless(random: Random) -> tuple[str, str]:
    """A kind of HARMLESS and a text of it."""
    kind = random.choice(list(HARMLESS))
    return kind, random.choice(FRAMES).format(HARMLESS[kind](random))


ANSWERS = Path(os.environ.get("OPTIINFRA_DATA", Path(__file__).parents[3] / "shared" / "data")) / "llm" / "halueval"
_SUSPICIOUS = re.compile(
    r"\S@\S+\.\S|\d{3}[-). ]+\d{3}[-. ]\d{4}|(?i:IP address \d|password: \S*\d)|\bpassword: \S*[$!#]"
)


def answers() -> Iterator[Texts]:
    """HaluEval's questions with their answers; FileNotFoundError where the shared data is absent."""
    with (ANSWERS / "general_data_visible.jsonl").open() as lines:
        for line in lines:
            row = json.loads(line)
            yield Texts(input=row["user_query"], output=row["chatgpt_response"])


def clean_answers() -> Iterator[Texts]:
    """Those of `answers` without what a coarse look takes for an e-mail, a phone number, a password or an address."""
    return (each for each in answers() if not _SUSPICIOUS.search(f"{each.input}\n{each.output}"))
