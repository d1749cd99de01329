"""What a file of products says, CSV or JSON. Decides which lines are right; the whole file counts or nothing of it.

CSV has a header line with the fields' names, separated by commas or (as Spanish spreadsheets save it) semicolons.
JSON is a list of objects. The artisan's column may be called `artisan` or `artisan_id`; other columns are ignored.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

import msgspec

MOST = 10**9  # units of a product; more is a slip of the keyboard
LONGEST = 200  # characters of an id or a name


class Product(msgspec.Struct, frozen=True, rename="camel"):
    """One product as it is to be from now on, named as the web API names it. `on_hand` and `threshold` are units."""

    product_id: str
    name: str
    category: str
    artisan_id: str
    on_hand: int
    threshold: int


class StockFileError(Exception):
    """The file can't be taken. `problems` has a line for each bad line: its number and the cause."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def parse(content: bytes, suffix: str) -> list[Product]:
    """Read a file of products. `suffix` is its name's end, `.csv` or `.json`. Raises StockFileError."""
    if suffix.lower() not in (".csv", ".json"):
        raise StockFileError([f"the file's name ends in {suffix!r}: only .csv and .json are known"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StockFileError([f"line {line}: not UTF-8 text"]) from None
    rows = _csv_rows(text) if suffix.lower() == ".csv" else _json_rows(text)
    products: dict[str, Product] = {}
    problems: list[str] = []
    lines: dict[str, int] = {}
    for line, fields in rows:
        try:
            product = product_of(fields)
            if product.product_id in products:
                raise ValueError(
                    f"product_id {product.product_id!r} stands on line {lines[product.product_id]} already"
                )
        except ValueError as error:
            problems.append(f"line {line}: {error}")
        else:
            products[product.product_id] = product
            lines[product.product_id] = line
    if not products and not problems:
        problems.append("the file has no products")
    if problems:
        raise StockFileError(problems)
    return list(products.values())


def product_of(fields: object) -> Product:
    """Check the fields of one product. Raises ValueError with every cause, separated by `; `."""
    if not isinstance(fields, Mapping):
        raise ValueError("not an object with a product's fields")  # noqa: TRY004 - one kind of error for every cause
    artisan = "artisan_id" if fields.get("artisan_id") else "artisan"
    texts = {name: _text(fields.get(name)) for name in ("product_id", "name", "category", artisan)}
    units = {name: _units(fields.get(name)) for name in ("on_hand", "threshold")}
    causes = [f"{name} is missing" for name, text in texts.items() if text == ""]
    causes += [
        f"{name} is longer than {LONGEST} characters" for name, text in texts.items() if len(text or "") > LONGEST
    ]
    causes += [f"{name} must be text, not {fields[name]!r}" for name, text in texts.items() if text is None]
    causes += [
        f"{name} is missing"
        if fields.get(name) in (None, "")
        else f"{name} must be a whole number from 0, not {fields[name]!r}"
        for name, number in units.items()
        if number is None
    ]
    if None in fields:  # a CSV line with more values than the header has names
        causes.append("more values than the header has names")
    if causes:
        raise ValueError("; ".join(causes))
    values: dict[str, Any] = texts | units
    return Product(artisan_id=values.pop(artisan), **values)


def _text(value: object) -> str | None:
    return "" if value is None else value.strip() if isinstance(value, str) else None


def _units(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() and value.isascii() else None
    return value if type(value) is int and 0 <= value <= MOST else None


def _csv_rows(text: str) -> Iterator[tuple[int, object]]:
    header = text.partition("\n")[0]
    reader = csv.DictReader(StringIO(text, newline=""), delimiter=";" if ";" in header else ",", skipinitialspace=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise StockFileError([f"line {reader.line_num}: {error}"]) from None


def _json_rows(text: str) -> Iterator[tuple[int, object]]:
    """Yield each object of the list with the line that it starts on, which json.loads does not tell."""
    try:
        if not isinstance(json.loads(text), list):
            raise StockFileError(["line 1: not a list of products"])
    except json.JSONDecodeError as error:
        raise StockFileError([f"line {error.lineno}: not JSON: {error.msg}"]) from None
    decoder = json.JSONDecoder()
    at = _skip(text, text.index("[") + 1)
    while text[at] != "]":
        item, end = decoder.raw_decode(text, at)
        yield text.count("\n", 0, at) + 1, item
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n,":
        at += 1
    return at
