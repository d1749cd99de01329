import json

import pytest

from app.stock_file import Product, StockFileError, parse

OLIVE_OIL = Product("product_aceite_picual", "Aceite Picual", "aceite", "artisan_1", 50, 10)
HONEY = Product("product_miel_azahar", "Miel de azahar", "miel", "artisan_2", 100, 20)

NAMES = ("product_id", "name", "category", "artisan", "on_hand", "threshold")
CSV = """product_id,name,category,artisan,on_hand,threshold
product_aceite_picual,Aceite Picual,aceite,artisan_1,50,10
product_miel_azahar,Miel de azahar,miel,artisan_2,100,20
"""


def problems(text: str, suffix: str = ".csv") -> list[str]:
    with pytest.raises(StockFileError) as caught:
        parse(text.encode(), suffix)
    return caught.value.problems


def csv_line(line: str) -> str:
    return f"product_id,name,category,artisan,on_hand,threshold\n{line}\n"


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace(",", ";"),
        "\ufeff" + CSV,
        CSV.replace("artisan,", "artisan_id,"),
        CSV.replace("\n", "\n\n"),
        CSV.replace("threshold\n", "threshold,colour\n").replace("0\n", "0,green\n"),
        CSV.replace("Aceite Picual", '"Aceite Picual"').replace(",50", ", 50 "),
    ],
    ids=["plain", "windows", "semicolons", "byte-order-mark", "artisan_id", "empty-lines", "other-column", "spaces"],
)
def test_a_csv_file_is_read_however_a_spreadsheet_saved_it(text: str) -> None:
    assert parse(text.encode(), ".CSV") == [OLIVE_OIL, HONEY]


def test_a_json_file_is_a_list_of_products() -> None:
    lines = [
        {"product_id": p.product_id, "name": p.name, "category": p.category, "artisan": p.artisan_id}
        | {"on_hand": p.on_hand, "threshold": p.threshold}
        for p in (OLIVE_OIL, HONEY)
    ]
    assert parse(json.dumps(lines, indent=2).encode(), ".json") == [OLIVE_OIL, HONEY]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("oil,Oil,aceite,a1,ten,1", "on_hand must be a whole number from 0, not 'ten'"),
        ("oil,Oil,aceite,a1,-1,1", "on_hand must be a whole number from 0, not '-1'"),
        ("oil,Oil,aceite,a1,1.5,1", "on_hand must be a whole number from 0, not '1.5'"),
        ("oil,Oil,aceite,a1,²,1", "on_hand must be a whole number from 0, not '²'"),
        ("oil,Oil,aceite,a1,9999999999999,1", "on_hand must be a whole number from 0, not '9999999999999'"),
        (f"oil,{'O' * 201},aceite,a1,1,1", "name is longer than 200 characters"),
        ("oil,Oil,aceite,a1,,1", "on_hand is missing"),
        ("oil,Oil,aceite,a1,5", "threshold is missing"),
        (",Oil,aceite,a1,5,1", "product_id is missing"),
        ("oil,  ,,a1,5,1", "name is missing; category is missing"),
        ("oil,Oil,aceite,,5,1", "artisan is missing"),
        ("oil,Oil,aceite,a1,5,1,7", "more values than the header has names"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_cause(line: str, cause: str) -> None:
    assert problems(csv_line(line)) == [f"line 2: {cause}"]


def test_every_bad_line_is_told_and_none_of_the_good_ones_is_taken() -> None:
    text = CSV + "oil,Oil,aceite,a1,ten,1\nproduct_miel_azahar,Again,miel,a1,1,1\n\ncheese,Queso,queso,a1,1,\n"
    assert problems(text) == [
        "line 4: on_hand must be a whole number from 0, not 'ten'",
        "line 5: product_id 'product_miel_azahar' stands on line 3 already",
        "line 7: threshold is missing",
    ]


def test_bad_json_products_are_told_by_the_line_they_start_on() -> None:
    text = """[
  {"product_id": "oil", "name": "Oil", "category": "c", "artisan": "a", "on_hand": true, "threshold": 1},
  7,
  {"product_id": 12, "name": "Oil",
   "category": "c", "artisan": "a", "on_hand": 1, "threshold": 1.0},
  {}
]"""
    assert problems(text, ".json") == [
        "line 2: on_hand must be a whole number from 0, not True",
        "line 3: not an object with a product's fields",
        "line 4: product_id must be text, not 12; threshold must be a whole number from 0, not 1.0",
        "line 6: " + "; ".join(f"{n} is missing" for n in NAMES),
    ]


@pytest.mark.parametrize(
    ("text", "suffix", "problem"),
    [
        ("", ".csv", "the file has no products"),
        ("product_id,name\n", ".csv", "the file has no products"),
        ("[]", ".json", "the file has no products"),
        ("{}", ".json", "line 1: not a list of products"),
        ("[\n{]", ".json", "line 2: not JSON"),
        ("", ".xlsx", "the file's name ends in '.xlsx': only .csv and .json are known"),
    ],
)
def test_a_file_that_is_none_is_told(text: str, suffix: str, problem: str) -> None:
    assert problems(text, suffix)[0].startswith(problem)


def test_a_file_in_another_encoding_is_told_by_its_line() -> None:
    with pytest.raises(StockFileError, match="line 2: not UTF-8 text"):
        parse(csv_line("oil,Jamón,c,a,1,1").encode("latin-1"), ".csv")
