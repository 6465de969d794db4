"""The value formats of FOCUS as RE2 patterns and word lists, which DuckDB and ClickHouse read alike. No SQL.

Sources: the attributes of FOCUS 1.2 (CurrencyFormat, DateTimeFormat, KeyValueFormat, NullHandling, NumericFormat,
UnitFormat), the properties listed under SkuPriceDetails, ECMA-404 for JSON, ISO 4217 for currencies.
"""

NUMERIC = r"^-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?$"  # a sign only where the number or the exponent is negative
DATETIME = r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$"
CURRENCY_CODE = r"^[A-Z]{3}$"
THREE_LETTERS = r"^[A-Za-z]{3}$"
VISIBLE = r"[^ \t\r\n]"

# "GB", "API Requests" - "GB-Hours" - "GB/Hour" - "1000 Requests" - "Units/3 Months"
_NOUN = r"[A-Za-z][A-Za-z0-9]*(?: [A-Za-z][A-Za-z0-9]*)*"
_TIME = "(?:Year|Month|Day|Hour|Minute|Second)"
UNIT = f"^(?:(?:[1-9][0-9]* )?{_NOUN}|{_NOUN}-{_TIME}s|{_NOUN}/{_TIME}|{_NOUN}/[1-9][0-9]* {_TIME}s)$"

# A JSON object without nested values is a regular language. A pattern, because the engines' own JSON functions
# disagree: DuckDB takes a trailing comma and NaN, ClickHouse neither.
_SPACE = r"[ \t\n\r]*"
_CHARS = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*'
_STRING = f'"{_CHARS}"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = f"(?:{_STRING}|{_NUMBER}|true|false|null)"


def _object(*pairs: tuple[str, str]) -> str:
    pair = "|".join(f"{key}{_SPACE}:{_SPACE}{value}" for key, value in pairs)
    pair = f"(?:{pair}){_SPACE}"
    return rf"^{_SPACE}\{{{_SPACE}(?:{pair}(?:,{_SPACE}{pair})*)?\}}{_SPACE}$"


_NUMERIC_PROPERTIES = "CoreCount|DiskMaxIops|DiskSpace|GpuCount|MemorySize|NetworkMaxIops|NetworkMaxThroughput"
_TEXT_PROPERTIES = "DiskType|InstanceType|InstanceSeries|OperatingSystem|Redundancy|StorageClass"
_CUSTOM_KEY = f'"x_{_CHARS}"'

KEY_VALUE = _object((_STRING, _SCALAR))
SKU_KEYS = _object((f'(?:{_CUSTOM_KEY}|"(?:{_NUMERIC_PROPERTIES}|{_TEXT_PROPERTIES})")', _SCALAR))
SKU_TYPES = _object(
    (_CUSTOM_KEY, _SCALAR),
    (f'"(?:{_NUMERIC_PROPERTIES})"', f"(?:{_NUMBER}|null)"),
    (f'"(?:{_TEXT_PROPERTIES})"', f"(?:{_STRING}|null)"),
)
SKU_CASE = _object((r'"(?:x_)?[A-Z][A-Za-z0-9]*"', _SCALAR))

# What providers were seen to write for "no value"; NullHandling asks for null. Compared after trimming spaces.
PLACEHOLDERS = (
    *("", "-", "-2", "NULL", "null", "None", "none", "N/A", "n/a", "nil"),
    *("Not Applicable", "Not applicable", "not applicable", "Unassigned", "unassigned", "undefined"),
)

# ISO 4217 list one, of 2025: active codes, funds and precious metals included
_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ
GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR
PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY
TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF
XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG
"""
NATIONAL_CURRENCIES = tuple(_CODES.split())
