"""backup.toml: what it says, and what is told about each mistake."""

from pathlib import Path

import pytest

from backup.config.set_file import SetText, find_text, read_sets
from backup.config.set_settings import SetSection, options_of
from backup.config.settings import load_settings
from backup.core.conditions import Range
from backup.core.errors import ConfigError
from backup.core.patterns import matching
from backup.services.table_sections import TableSections

WHOLE = """
[defaults]
recycle_days = 30
max_deletes = 5

[set.chinook]
source = "${CHINOOK_SOURCE}"
backup = "sqlite:///backup.db"
tables = [
  "dbo.*",
]
recycle_days = 7

[set.chinook.table."dbo.Customer"]
where = { Country = ["Türkiye", "Germany"], Total = { from = 1, below = 2.5 }, Active = true }
columns = { exclude = ["Fax"] }
recycle_days = 3
"""
ENVIRONMENT = {"CHINOOK_SOURCE": "sqlite:///source.db"}


def read(text: str, environment: dict[str, str] | None = None) -> dict[str, SetSection]:
    return dict(read_sets(SetText("backup.toml", text), ENVIRONMENT if environment is None else environment))


def mistakes(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        read(text, environment)
    return str(raised.value)


def test_a_table_has_its_own_value_else_that_of_its_set_else_the_default() -> None:
    chinook = read(WHOLE)["chinook"]
    own = options_of(chinook, chinook.sections["dbo.Customer"])
    other = options_of(chinook, chinook.sections["dbo.Customer"].model_copy(update={"recycle_days": None}))
    assert (own.recycle_days, own.max_deletes, other.recycle_days) == (3, 5, 7)


def test_a_section_that_names_a_table_counts_before_one_with_a_pattern() -> None:
    text = (
        PLAIN
        + """
    [set.a.table."*"]
    mask = { Secret = "null" }
    recycle_days = 1
    transform = [{ drop = ["A"] }, { constant = { B = 1 } }]
    types = { B = "int" }
    [set.a.table."*s"]
    recycle_days = 2
    key = ["No"]
    [set.a.table.Orders]
    columns = { exclude = ["Fax"] }
    recycle_days = 3
    transform = [{ drop = ["C"] }]
    """
    )
    sections = TableSections(read(text)["a"], ["Orders", "orders", "Lines"])
    options_by_table = {table: sections.of(table).options for table in ("Orders", "orders", "Lines", "ORDERS")}
    assert {table: options.recycle_days for table, options in options_by_table.items()} == {
        **{"Orders": 3, "orders": 1, "Lines": 1},
        "ORDERS": 3,  # which nobody has listed
    }
    assert [[*options.mask] for options in options_by_table.values()] == [["Secret"]] * 4
    assert [options.key for options in options_by_table.values()] == [("No",)] * 4
    assert [options.columns.exclude for options in options_by_table.values()] == [("Fax",), (), (), ("Fax",)]
    assert [bool(options.types) for options in options_by_table.values()] == [False, True, True, False]
    assert sections.of("Orders").told_by["key"] == "*s"


def test_conditions_are_values_lists_and_ranges() -> None:
    section = read(WHOLE)["chinook"].sections["dbo.Customer"]
    assert section.where == {
        "Country": ("Türkiye", "Germany"),
        "Total": Range(lowest=1, below=2.5),
        "Active": True,
    }
    assert section.columns.exclude == ("Fax",)


def test_a_condition_in_sql_is_one_condition_also_within_brackets() -> None:
    written = PLAIN + "[set.a.table.x]\nwhere_sql = '''\n{}'''"
    for whole in ("Id > 1 AND (a = 'it''s (' OR b IN (1, 2))", '"odd ) name" = tags[1]', "`-- x` = ';'"):
        assert read(written.format(whole))["a"].table["x"].where_sql == whole
    for apart in (
        "id < 10) OR (id > 1990",
        "(id < 10",
        "a[1)",
        "a = 'x",
        'a = "x',
        "a = 1 -- why",
        "a = 1; x",
        "a /* */",
        " ",
    ):
        message = mistakes(written.format(apart))
        assert "set.a.table.x.where_sql" in message, apart
        assert message.count("Line") == 1


def test_variables_come_from_the_environment_and_are_never_told() -> None:
    assert read(WHOLE)["chinook"].source == "sqlite:///source.db"
    assert "hunter2" not in repr(load_settings({"BACKUP_TOML": WHOLE, "CHINOOK_SOURCE": "sqlite:///hunter2.db"}))
    assert read(WHOLE.replace("sqlite:///backup.db", "sqlite:///$${X}.db"))["chinook"].backup == "sqlite:///${X}.db"


def test_a_variable_that_is_missing_is_told_with_its_line() -> None:
    assert "Line 7: The environment has no value of CHINOOK_SOURCE." in mistakes(WHOLE, {})


@pytest.mark.parametrize(
    ("wrong", "line", "problem"),
    [
        (WHOLE.replace("tables =", "tabels ="), 9, "There is no tabels in [set.chinook]. Did you mean tables?"),
        (WHOLE.replace("exclude", "exclud"), 16, "There is no exclud in"),
        (WHOLE.replace("max_deletes = 5", 'max_deletes = "5"'), 4, "defaults.max_deletes: input should be a valid int"),
        (WHOLE.replace("below", "blow"), 15, "a range has no blow. Did you mean below?"),
        (WHOLE.replace('backup = "sqlite:///backup.db"\n', ""), 6, "backup is missing in [set.chinook]."),
        (WHOLE.replace('  "dbo.*",\n', ""), 6, "tables is missing"),
        (WHOLE + "[set.all]\nsource='a'\nbackup='b'\ntables='c'\n", 18, "set.all: a set's name has letters"),
        (WHOLE + "[set.Chinook]\nsource='a'\nbackup='b'\ntables='c'\n", 1, "two sets are called chinook"),
        (WHOLE + "masks = { Email = 'email' }\n", 18, "There is no masks in"),
        (WHOLE + "mask = { Email = 'mail' }\n", 18, "a mask is null, hmac, email, year"),
        (WHOLE + "mask = { Email = { txt = 'a' } }\n", 18, 'a mask is "null", "hmac", "email", "year", or { text'),
    ],
)
def test_each_mistake_is_told_with_its_line_and_what_was_meant(wrong: str, line: int, problem: str) -> None:
    message = mistakes(wrong)
    assert f"Line {line}: " in message
    assert problem in message


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    message = mistakes(WHOLE.replace("tables =", "tabels =").replace("recycle_days = 7", "recycle_days = -7"))
    assert message.index("Line 9: There is no tabels") < message.index("Line 12: set.chinook.recycle_days")


def test_a_text_that_is_no_toml_is_told_with_its_line() -> None:
    assert "(at line 2, column 8)" in mistakes("[set.a]\nsource=\n")


def test_containers_need_a_database_and_tables_take_none_of_them() -> None:
    account = '[set.shop]\nsource = "AccountEndpoint=https://a/"\nbackup = "AccountEndpoint=https://b/"\n'
    assert "database is missing" in mistakes(account + 'containers = "*"\n')
    assert "its source has containers, no tables" in mistakes(account + 'database = "d"\ntables = "*"\n')
    one_moment = 'database = "d"\ncontainers = "a"\nconsistent = true\n'
    assert not read(account + one_moment.replace("true", "false"))["shop"].consistent
    orders = 'database = "d"\ncontainers = "orders"\nwhere = { orders = { type = "Order" } }\n'
    assert read(account + orders)["shop"].sections["orders"].where == {"type": "Order"}


ACCOUNT = """[set.shop]
source = "AccountEndpoint=https://a/"
backup = "AccountEndpoint=https://b/"
database = "d"
containers = "a"
{}
[set.shop.container.a]
{}
"""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("indexes = true", "A container that the app makes"),
        ("consistent = true", "Cosmos DB has no state"),
        ('modified_by = "m"', "Cosmos DB knows by itself"),
        ('on_new_column = "fail"', "A document is copied with all"),
        ('where_sql = "a = 1"', "Write conditions"),
        ('columns = { exclude = ["b"] }', "A transform can"),
        ('key = ["b"]', "A document's key"),
        ('types = { b = "int" }\ntransform = [{ drop = ["b"] }]', "A property of a document"),
        ('renamed_from = "b"', "Cosmos DB cannot rename"),
        ("throughput = { shared = 400 }", "shared is the throughput of the whole database"),
    ],
)
def test_what_means_nothing_for_containers_is_told_with_its_line(line: str, why: str) -> None:
    name = line.partition(" ")[0]
    if name == "consistent" or name in COMMON:
        assert f"Line 6: set.shop.{name}: this is for tables" in mistakes(ACCOUNT.format(line, ""))
    if name != "consistent":
        message = mistakes(ACCOUNT.format("", line))
        assert f"Line 8: set.shop.container.a.{name}: " in message
        assert why in message


COMMON = ("indexes", "modified_by", "on_new_column")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (WHOLE + "throughput = 400\n", 'Line 18: set.chinook.table."dbo.Customer".throughput: this is for containers'),
        (WHOLE.replace("recycle_days = 7", "throughput = 400"), "Line 12: set.chinook.throughput: this is for con"),
        (WHOLE.replace("recycle_days = 30", "throughput = 400"), "Line 3: defaults.throughput: this is for containers"),
        (WHOLE + 'partition_key = { source = "/a", copy = "/b" }\n', "Line 18: "),
        (ACCOUNT.format("", "") + "[defaults]\nindexes = true\n", "Line 10: defaults.indexes: this is for tables"),
    ],
)
def test_what_means_nothing_for_tables_or_for_any_set_is_told_with_its_line(text: str, problem: str) -> None:
    assert problem in mistakes(text)


def test_a_default_may_be_for_some_sets_alone() -> None:
    text = WHOLE.replace("recycle_days = 30", "throughput = 400\nindexes = true") + ACCOUNT.format("", "")
    assert read(text)["chinook"].indexes


@pytest.mark.parametrize(
    ("source", "is_taken"),
    [
        ("sqlite:///master", False),
        ("postgresql://h/master", False),
        ("Server=h;Database=Shop;User Id=sa;Password=master", False),
        ("Server=h;Initial Catalog = master;User Id=sa", True),
        ("Driver={x};Server=h;Database={master}", True),
        ("mssql+pyodbc://sa@h/master?Encrypt=yes", True),
        ("mssql://sa@h/Shop?a=/master", False),
    ],
)
def test_a_set_names_a_database_only_where_its_string_names_none(source: str, is_taken: bool) -> None:
    for side, option in (("source", "database"), ("backup", "backup_database")):
        sides = {"source": "sqlite:///a.db", "backup": "sqlite:///b.db", side: source}
        lines = [f'{name} = "{string}"' for name, string in sides.items()]
        text = "\n".join(["[set.a]", *lines, 'tables = "*"', f'{option} = "x"'])
        if is_taken:
            assert getattr(read(text)["a"], option) == "x"
        else:
            problem = f"Line 5: set.a.{option}: the connection string in {side} names the database already. Remove it."
            assert problem in mistakes(text)


def test_the_text_comes_from_the_setting_else_the_named_file_else_the_first_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "backup.toml").write_text(folder)
    folders = [tmp_path / "none", tmp_path / "a", tmp_path / "b"]
    assert find_text(None, "text", folders) == ("BACKUP_TOML", "text")
    assert find_text(str(tmp_path / "b" / "backup.toml"), None, folders) == ("backup.toml", "b")
    assert find_text(None, None, folders) == ("backup.toml", "a")
    assert find_text(None, None, []) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        find_text(str(tmp_path / "none.toml"), None, folders)
    with pytest.raises(ConfigError, match="Both"):
        find_text("x", "y", folders)


@pytest.mark.parametrize(("text", "is_path"), [("/home/site/backup.toml", True), ("[set.a\nsource = 'x'", False)])
def test_a_path_in_place_of_the_text_is_told_where_paths_go(text: str, is_path: bool) -> None:
    with pytest.raises(ConfigError, match="BACKUP_TOML is not TOML") as caught:
        _ = load_settings({"BACKUP_TOML": text}).sets
    assert ("Name a file with BACKUP_CONFIG" in caught.value.hint) is is_path


def test_settings_without_the_file_have_no_sets() -> None:
    assert load_settings({}).sets == {}
    assert list(load_settings({"BACKUP_TOML": WHOLE, **ENVIRONMENT}).sets) == ["chinook"]


NAMES = ["dbo.Customer", "dbo.Invoice", "dbo.invoice", "sales.[my.table]", "sales.Item", "dbo.a*b"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", NAMES),
        ("dbo.*", ["dbo.Customer", "dbo.Invoice", "dbo.invoice", "dbo.a*b"]),
        ("dbo.I*", ["dbo.Invoice"]),
        ("dbo.invoice", ["dbo.invoice"]),
        ("DBO.INVOICE", ["dbo.Invoice", "dbo.invoice"]),
        ("Customer", ["dbo.Customer"]),
        ("sales.my.table", ["sales.[my.table]"]),
        ("sales.[my.table]", ["sales.[my.table]"]),
        ("sales.?tem", ["sales.Item"]),
        ("dbo.a*b", ["dbo.a*b"]),
        ("dbo.C[u]*", []),
        ("nothing", []),
    ],
)
def test_a_pattern_stands_for_names(pattern: str, names: list[str]) -> None:
    assert matching(pattern, NAMES) == names


def test_settings_are_parsed_again_only_when_a_value_or_the_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "backup.toml"
    file.write_text("")
    environment = {"BACKUP_CONFIG": str(file)}
    first = load_settings(environment)
    assert load_settings(dict(environment)) is first
    assert load_settings({**environment, "BackupSync__ChunkSize": "7"}).chunk_size == 7
    file.write_text("# changed")
    assert load_settings(environment) is not first


PLAIN = '[set.a]\nsource = "sqlite:///a"\nbackup = "sqlite:///b"\ntables = ["*"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a = " + "[" * 100_000, "nests lists or tables too deep", id="brackets"),
        pytest.param("a = " + "{a=" * 100_000, "nests lists or tables too deep", id="braces"),
        pytest.param("a" + ".a" * 5_000 + " = 1", "nests lists or tables too deep", id="dots"),
        pytest.param(f"{PLAIN}recycle_days = {'9' * 5000}", "too many digits", id="digits"),
    ],
)
def test_a_text_that_no_parser_can_take_is_a_mistake(text: str, message: str) -> None:
    assert message in mistakes(text)


@pytest.mark.parametrize("line", ['schedule = "0 0 2 * * ${S}"', 'time_zone = "${S}"', 'recycle_days = "${S}"'])
def test_no_mistake_quotes_the_value_of_a_variable(line: str) -> None:
    message = mistakes(PLAIN + line, {"S": "hunter2secret"})
    assert "hunter2" not in message
    assert "Line 5: set.a." in message


def test_many_mistakes_are_counted_and_the_first_told_with_their_lines() -> None:
    message = mistakes(PLAIN + "".join(f"x{n} = 1\n" for n in range(300)))
    assert "Line 14: " in message
    assert "Line 15: " not in message
    assert "and 290 more" in message


def test_the_mark_that_some_editors_put_before_a_text_does_not_count() -> None:
    assert [*read("\ufeff" + PLAIN)] == ["a"]


def test_a_mask_that_does_not_exist_is_not_quoted() -> None:
    message = mistakes(f'{PLAIN}[set.a.table.x]\nmask = {{ Email = "hunter2" }}', {})
    assert "Line 6: set.a.table.x.mask.Email: a mask is" in message
    assert "hunter2" not in message
