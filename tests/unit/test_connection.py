"""Connection strings of every kind that people have, and of none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from backup.errors import ConfigError
from backup.stores.connection import Cosmos, SqlServer, parse_connection
from backup.stores.dialects import open_dialect

SETTING = "SourceCustomerDb__ConnectionString"


def sql_server(text: str) -> SqlServer:
    where = parse_connection(text, SETTING)
    assert isinstance(where, SqlServer)
    return where


def url(text: str) -> URL:
    where = parse_connection(text, SETTING)
    assert isinstance(where, URL)
    return where


def cosmos(text: str) -> Cosmos:
    where = parse_connection(text, SETTING)
    assert isinstance(where, Cosmos)
    return where


# SQL Server


@pytest.mark.parametrize(
    "text",
    [
        "Server=tcp:db.example.com,1433;Database=Crm;User Id=sa;Password=pw;TrustServerCertificate=True",
        "server = tcp:db.example.com,1433 ; DATABASE = Crm; user id = sa; PASSWORD = pw ; TrustServerCertificate=yes;",
        "Data Source=tcp:db.example.com,1433;Initial Catalog=Crm;UID=sa;PWD=pw;Trust Server Certificate=true;",
        "Address=tcp:db.example.com,1433;Database={Crm};User={sa};Pwd={pw};TrustServerCertificate=yes",
        ";;Server=tcp:db.example.com,1433;;Database=Crm;User Id=sa;Password=pw;TrustServerCertificate=True;;",
    ],
)
def test_every_spelling_of_one_ado_net_string_means_the_same(text: str) -> None:
    where = sql_server(text)
    assert where.address.removeprefix("tcp:") == "db.example.com,1433"
    assert where.database == "Crm"
    assert (where.keywords["UID"], where.keywords["PWD"]) == ("sa", "pw")
    assert where.keywords["TrustServerCertificate"] == "yes"
    assert not where.token


@pytest.mark.parametrize("text", ["Driver={ODBC Driver 18 for SQL Server};Server=x;Database=y;UID=u;PWD={p;w}"])
def test_an_odbc_string_keeps_its_driver_and_what_braces_hold(text: str) -> None:
    where = sql_server(text)
    assert where.keywords["Driver"] == "ODBC Driver 18 for SQL Server"
    assert where.keywords["PWD"] == "p;w"


@pytest.mark.parametrize(
    ("spelt", "password"),
    [
        ('"p;w"', "p;w"),
        ("'p;w'", "p;w"),
        ('"p""w"', 'p"w'),
        ("'p''w'", "p'w"),
        ("{p}}w}", "p}w"),
        ("p=w==", "p=w=="),
        ("p w", "p w"),
        ("pä{w", "pä{w"),
        ('"  p  "', "  p  "),
        ("True", "True"),
    ],
)
def test_a_password_may_hold_any_character_as_its_kind_of_string_quotes_it(spelt: str, password: str) -> None:
    assert sql_server(f"Server=x;Database=y;User Id=u;Password={spelt};Encrypt=True").keywords["PWD"] == password
    assert sql_server(f"Server=x;Database=y;User Id=u;Password={spelt}").keywords["PWD"] == password


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mssql+pyodbc://sa:p%40w@db.example.com:1433/Crm", "db.example.com,1433"),
        ("mssql://sa:p%40w@db.example.com/Crm", "db.example.com"),
        (
            "mssql+pyodbc://sa:p%40w@db.example.com/Crm?driver=ODBC+Driver+18+for+SQL+Server&Encrypt=yes",
            "db.example.com",
        ),
        (
            "mssql+pyodbc:///?odbc_connect=Server%3Ddb.example.com%3BDatabase%3DCrm%3BUID%3Dsa%3BPWD%3Dp%40w",
            "db.example.com",
        ),
    ],
)
def test_a_url_names_a_sql_server(text: str, address: str) -> None:
    where = sql_server(text)
    assert (where.address, where.database) == (address, "Crm")
    assert (where.keywords["UID"], where.keywords["PWD"]) == ("sa", "p@w")


@pytest.mark.parametrize(
    "text",
    [
        "Server=x.database.windows.net;Database=y",
        "Server=x;Database=y;Authentication=Active Directory Default",
        "Server=x;Database=y;Authentication=Active Directory Managed Identity;User Id=client",
        "mssql+pyodbc://x.database.windows.net/y",
    ],
)
def test_without_a_password_the_managed_identity_logs_in(text: str) -> None:
    assert sql_server(text).token


@pytest.mark.parametrize(
    "text",
    [
        "Server=x;Database=y;User Id=u;Password=p",
        "Server=x;Database=y;Integrated Security=SSPI",
        "Server=x;Database=y;Trusted_Connection=yes",
        "Server=x;Database=y;Authentication=Active Directory Password;User Id=u;Password=p",
    ],
)
def test_with_a_login_of_its_own_it_does_not(text: str) -> None:
    assert not sql_server(text).token


@pytest.mark.parametrize(
    "text",
    [
        "Server=x;Database=y;User Id=u;Password=p;ApplicationIntent=ReadOnly",
        "Server=x;Database=y;User Id=u;Password=p;Application Intent=ReadOnly",
        "Driver={ODBC Driver 18 for SQL Server};Server=x;Database=y;UID=u;PWD=p;ApplicationIntent=ReadOnly",
        "mssql+pyodbc://u:p@x/y?ApplicationIntent=ReadOnly",
        "mssql+pyodbc:///?odbc_connect=Server%3Dx%3BDatabase%3Dy%3BUID%3Du%3BPWD%3Dp%3BApplicationIntent%3DReadOnly",
    ],
)
def test_who_asks_for_a_readable_secondary_gets_it(text: str) -> None:
    where = parse_connection(text, "TEST")
    assert isinstance(where, SqlServer)
    assert where.keywords["ApplicationIntent"] == "ReadOnly"


def test_keywords_without_a_meaning_for_the_copy_are_passed_over() -> None:
    portal = (
        "Server=tcp:x.database.windows.net,1433;Initial Catalog=y;Persist Security Info=False;User ID=u;Password=p;"
        "MultipleActiveResultSets=False;Encrypt=True;TrustServerCertificate=False;Connection Timeout=30;"
    )
    assert sql_server(portal).keywords.keys() >= {"Server", "Database", "UID", "PWD", "Encrypt"}


@pytest.mark.parametrize("keyword", ["Databse", "Pasword", "Servr", "x"])
def test_an_unknown_keyword_is_refused_by_its_name_and_the_setting(keyword: str) -> None:
    with pytest.raises(ConfigError, match=rf"{SETTING}.*'{keyword.lower()}'"):
        parse_connection(f"Server=a;Database=b;{keyword}=c", SETTING)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Server=x;User Id=u;Password=p", "Database"),
        ("Server=x;Database=;User Id=u;Password=p", "Database"),
        ("Database=x;User Id=u;Password=p", "Server"),
        ("mssql+pyodbc://u:p@x/", "Database"),
        ("mssql+pyodbc:///?odbc_connect=Server%3Dx", "Database"),
    ],
)
def test_a_missing_part_is_named_and_never_guessed(text: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{SETTING} names no {missing}"):
        parse_connection(text, SETTING)


# master


@pytest.mark.parametrize("name", ["master", "Master"])
def test_the_default_database_stands_in_for_master(name: str) -> None:
    dialect: Any = open_dialect(f"Server=x;Database={name};UID=u;PWD=p", SETTING, default_database="Crm_Backup")
    assert "Crm_Backup" in dialect.location


def test_master_without_a_default_database_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"{SETTING}.*master"):
        open_dialect("Server=x;Database=master;UID=u;PWD=p", SETTING)


def test_the_default_database_replaces_no_other() -> None:
    dialect: Any = open_dialect("Server=x;Database=Crm;UID=u;PWD=p", SETTING, default_database="Crm_Backup")
    assert "Crm_Backup" not in dialect.location


# Cosmos DB


@pytest.mark.parametrize("end", ["", ";"])
def test_a_cosmos_string_has_an_endpoint_and_a_key(end: str) -> None:
    where = cosmos(f"AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=a+/b=={end}")
    assert (where.endpoint, where.key) == ("https://a.documents.azure.com:443/", "a+/b==")


@pytest.mark.parametrize("end", ["", ";AccountKey=", ";accountkey=;"])
def test_without_a_key_the_managed_identity_is_used(end: str) -> None:
    assert cosmos(f"AccountEndpoint=https://a.documents.azure.com:443/{end}").key is None


def test_a_user_assigned_identity_of_a_cosmos_side_is_named_by_its_client_id() -> None:
    assert cosmos("AccountEndpoint=https://a/;ClientId=1f0e").client_id == "1f0e"
    assert cosmos("AccountEndpoint=https://a/;ClientId=").client_id is None


@pytest.mark.parametrize(
    "text",
    [
        "AccountEndpoint=https://a/;AccountKey=k;ClientId=1f0e",
        *("AccountEndpoint=;AccountKey=k", "AccountEndpoint=a.documents.azure.com;AccountKey=k"),
        *("AccountEndpoint=https://;AccountKey=k", "AccountEndpoint=https://a/;AccountKey=k;Server=x"),
    ],
)
def test_a_cosmos_string_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=SETTING):
        parse_connection(text, SETTING)


# SQLite, PostgreSQL


@pytest.mark.parametrize(
    ("text", "backend", "database"),
    [
        ("sqlite:///data/x.db", "sqlite", "data/x.db"),
        ("sqlite:////var/x.db", "sqlite", "/var/x.db"),
        ("postgresql://u:p@h/x", "postgresql", "x"),
        ("postgresql+psycopg://u:p@h:5433/x", "postgresql", "x"),
    ],
)
def test_a_url_names_sqlite_or_postgresql(text: str, backend: str, database: str) -> None:
    where = url(text)
    assert (where.get_backend_name(), where.database) == (backend, database)


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:", "postgresql://u:p@h", "postgresql://u:p@h/"])
def test_a_url_without_a_lasting_database_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{SETTING} names no database"):
        parse_connection(text, SETTING)


@pytest.mark.parametrize("text", ["mysql://u:p@h/x", "oracle://u:p@h/x", "https://a.documents.azure.com/", "file:///x"])
def test_another_kind_of_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=SETTING):
        parse_connection(text, SETTING)


# Anything at all


@pytest.mark.parametrize(
    "text", ["", "   ", ";", ";;;", "garbage", "=", "=x", "Server", "Server=x;Database", "://", "a=b"]
)
def test_what_is_no_connection_string_is_refused_by_the_settings_name(text: str) -> None:
    with pytest.raises(ConfigError, match=SETTING):
        parse_connection(text, SETTING)


PIECES = ["Server=", "Database=", "Password=", "sqlite:///", "postgresql://", "mssql://", "@", ":", ";", "{", "}", '"']
texts = st.one_of(
    st.text(), st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)
)


def read(text: str) -> tuple[SqlServer | Cosmos | URL | None, str]:
    """What the text stands for, or None and all that its refusal says."""
    try:
        return parse_connection(text, SETTING), ""
    except ConfigError as error:
        return None, f"{error} {error.hint}"


@given(texts)
def test_any_text_is_read_or_refused_by_the_settings_name(text: str) -> None:
    where, refusal = read(text)
    assert where is not None or SETTING in refusal


password_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12).map(
    lambda text: f"pw{text}Z9"
)


@given(password_texts, st.sampled_from(["", ";Encrypt=yes", ";Nonsense=1", ";Server="]), st.booleans(), st.booleans())
def test_a_quoted_password_is_read_as_it_is_and_never_shown(
    password: str, more: str, complete: bool, braces: bool
) -> None:
    quoted = "{" + password.replace("}", "}}") + "}" if braces else '"' + password.replace('"', '""') + '"'
    where, refusal = read(f"Server=x;{'Database=y;' if complete else ''}User Id=u;Password={quoted}{more}")
    assert password not in refusal + repr(where)
    assert where is None or (isinstance(where, SqlServer) and where.keywords["PWD"] == password)
    assert (where is not None) == (complete and more in ("", ";Encrypt=yes"))


@given(
    password_texts, st.sampled_from(["postgresql", "mysql", "mssql", "sqlite", "x"]), st.sampled_from(["", "/", "/d"])
)
def test_the_password_of_a_url_is_never_shown_however_it_is_spelt(password: str, scheme: str, end: str) -> None:
    where, refusal = read(f"{scheme}://u:{password}@h{end}")
    told_apart = isinstance(where, URL) and where.password != password  # cut off elsewhere by a character of its own
    assert password not in refusal
    assert told_apart or password not in repr(where)
