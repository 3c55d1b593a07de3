"""Connection strings of every kind that people have, and of none."""

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from backup.core.errors import ConfigError
from backup.core.log import redact
from backup.stores import Limits, Rules
from backup.stores.connection import Cosmos, SqlServer, parse_connection
from backup.stores.sides import Side, open_store
from backup.stores.sql.engines import open_dialect

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
def test_with_a_login_of_its_own_a_string_needs_no_managed_identity(text: str) -> None:
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


@pytest.mark.parametrize(
    ("keyword", "meant"), [("Databse", "Database"), ("Pasword", "Password"), ("Servr", "Server"), ("x", "")]
)
def test_an_unknown_keyword_is_refused_by_where_it_stands_and_what_may_be_meant(keyword: str, meant: str) -> None:
    _, refusal = read(f"Server=a;User Id=b;{keyword}=c")
    assert SETTING in refusal
    assert "behind the value of user id" in refusal
    assert ("did you mean " + meant in refusal) == bool(meant)


@pytest.mark.parametrize(
    "text",
    [
        "Server=h;Database=d;User Id=u;Password=Sec;ret9",
        "Server=h;Database=d;User Id=u;Password=Sec;ret9=x;Encrypt=True",
        "Server=h;Database=d;User Id=u;Password=Sec;Server=ret9",
        "Server=h;Database=d;User Id=u;Password=Sec;Data Source=ret9",
        'Server=h;Database=d;User Id=u;Password="Sec;ret9',
        'Server=h;Database=d;User Id=u;Password="Sec";ret9"',
        "Driver={ODBC Driver 18 for SQL Server};Server=h;Database=d;UID=u;PWD={Sec};ret9}",
        "AccountEndpoint=https://a/;AccountKey=Sec;ret9=x",
        *(f"{kind}://u:Sec@ret9@h/d" for kind in ("postgresql", "postgres", "mssql+pyodbc")),
        *(f"{kind}://u:Sec@ret9/x@h/d" for kind in ("postgresql+psycopg2", "mssql")),
        "postgresql://u:Sec@ret9?x@h/d",
        "postgresql://u:Sec@x:ret9@h/d",
        "postgresql://u:Sec@x?ret9=1@h/d",
        "postgresql://u/x:Sec@ret9@h/d",
        "ret9://u:Sec@h/d",
        "host=h dbname=d user=u password=ret9",
    ],
)
def test_no_piece_of_a_password_is_shown_whatever_split_it(text: str) -> None:
    where, refusal = read(text)
    assert where is None
    assert SETTING in refusal
    assert "ret9" not in refusal.lower()
    assert redact(refusal) == refusal


@pytest.mark.parametrize("password", ["{abc", '"abc', "'abc", "{a}b", '"a"b', "a=b", "a@b", "a/b?c#d%", "a'b", "}{"])
def test_a_password_without_quotes_is_read_as_it_is(password: str) -> None:
    assert sql_server(f"Server=x;Database=y;User Id=u;Password={password};Encrypt=True").keywords["PWD"] == password


@pytest.mark.parametrize(
    "text", ["@Microsoft.KeyVault(SecretUri=https://v/s/x)", "@microsoft.keyvault(VaultName=v;SecretName=s)"]
)
@pytest.mark.parametrize(
    "form",
    [
        *(
            "{}",
            " {} ",
            "'{}'",
            "Server=x;Database=y;User Id=u;Password={}",
            "AccountEndpoint=https://a/;AccountKey={}",
        ),
        *("postgresql://u:{}@h/d", "mssql+pyodbc://u:{}@h/d", "postgresql://h/d?user=u&password={}", "sqlite:///{}"),
    ],
)
def test_a_reference_that_was_not_resolved_is_called_so(text: str, form: str) -> None:
    _, refusal = read(form.format(text))
    assert f"{SETTING} is still a reference" in refusal


@pytest.mark.parametrize(
    "text", ["postgresql://u:p%00q@h:1/d", "Server=x;Database=y;UID=u;PWD=p\x00q", "sqlite:///a%00b"]
)
def test_a_nul_that_would_end_a_connection_string_early_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^Setting {SETTING} contains a NUL"):
        parse_connection(text, SETTING)


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
        "AccountEndpoint=https://a/;AccountKey=schlüssel",
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
        ("sqlite:///file:data/x%20y.db?mode=ro&uri=true", "sqlite", "data/x y.db"),
        ("sqlite:///file:///var/x.db?immutable=1", "sqlite", "/var/x.db"),
        ("sqlite:////var/a@b.db?mode=rw&timeout=3", "sqlite", "/var/a@b.db"),
        ("postgresql://u:p@h/x", "postgresql", "x"),
        ("postgresql+psycopg://u:p@h:5433/x", "postgresql", "x"),
        ("postgres://u:p@h/x", "postgresql", "x"),
        ("postgresql+psycopg2://u:p@h/x", "postgresql", "x"),
        ("postgres+psycopg2://u@s:p@h/x?application_name=a%40b", "postgresql", "x"),
        ("postgresql:///x?user=a@b&host=h", "postgresql", "x"),
    ],
)
def test_a_url_names_sqlite_or_postgresql(text: str, backend: str, database: str) -> None:
    where = url(text)
    assert (where.get_backend_name(), where.database) == (backend, database)


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:", "postgresql://u:p@h", "postgresql://u:p@h/"])
def test_a_url_without_a_lasting_database_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{SETTING} names no database"):
        parse_connection(text, SETTING)


@pytest.mark.parametrize("query", ["mode=rwc", "mode=memory", "nolock=1", "vfs=x", "immutable=yes"])
def test_a_file_is_opened_in_no_way_that_could_make_or_spoil_it(query: str) -> None:
    with pytest.raises(ConfigError, match=f"{SETTING} has a parameter"):
        parse_connection(f"sqlite:///data/x.db?{query}", SETTING)


@pytest.mark.parametrize("text", ["mysql://u:p@h/x", "oracle://u:p@h/x", "https://a.documents.azure.com/", "file:///x"])
def test_another_kind_of_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=SETTING):
        parse_connection(text, SETTING)


# What a secret may travel over

AZURE = "postgresql://app@shop.postgres.database.azure.com/x"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (AZURE, "verify-full"),
        (AZURE + "?sslmode=verify-full", "verify-full"),
        (AZURE + "?hostaddr=127.0.0.1", "verify-full"),
        ("postgresql://u:p@db.example.net/x", "verify-full"),
        ("postgresql://u:p@/x?host=127.0.0.1&host=db.example.net", "verify-full"),
        ("postgresql://u:p@localhost/x?hostaddr=10.0.0.1", "verify-full"),
        ("postgresql://u:p@localhost/x?service=s", "verify-full"),
        ("postgresql:///x", "verify-full"),
        ("postgresql://u:p@db.example.net/x?sslmode=disable", "disable"),
        ("postgresql://u:p@db.example.net/x?sslmode=require", "require"),
        ("postgresql://u:p@127.0.0.1/x", None),
        ("postgresql://u:p@localhost:5433/x", None),
        ("postgresql://u:p@[::1]/x", None),
        ("postgresql:///x?host=/run/postgresql", None),
    ],
)
def test_a_server_of_postgresql_elsewhere_is_verified_unless_the_url_says_otherwise(
    text: str, mode: str | None
) -> None:
    assert url(text).query.get("sslmode") == mode


@pytest.mark.parametrize(
    ("text", "encrypt"),
    [
        ("Server=x;Database=y;User Id=u;Password=p", "yes"),
        ("Server=x;Database=y;User Id=u;Password=p;Encrypt=Mandatory", "yes"),
        ("Server=x;Database=y;User Id=u;Password=p;Encrypt=False", "no"),
        ("Server=x;Database=y", "yes"),
        ("Server=x;Database=y;Encrypt=Strict", "strict"),
        ("Driver=FreeTDS;Server=127.0.0.1;Database=y;User Id=u;Password=p", "yes"),
    ],
)
def test_a_connection_to_sql_server_is_encrypted_unless_the_string_says_otherwise(text: str, encrypt: str) -> None:
    assert sql_server(text).keywords["Encrypt"] == encrypt


@pytest.mark.parametrize(
    "text",
    [
        *(AZURE + f"?sslmode={mode}" for mode in ("disable", "allow", "prefer", "require", "verify-ca", "any")),
        "Server=x;Database=y;Encrypt=False",
        "Server=x;Database=y;Encrypt=Optional",
        "Server=x;Database=y;TrustServerCertificate=True",
        "mssql://x/y?TrustServerCertificate=yes",
        "Driver=FreeTDS;Server=x;Database=y",
        "Driver=FreeTDS;Server=x;Database=y;User Id=u;Password=p",
        "Server=x;Database=y;Authentication=Active Directory Password;User Id=u;Password=p;TrustServerCertificate=True",
    ],
)
def test_what_would_give_away_a_token_is_refused_by_the_settings_name(text: str) -> None:
    with pytest.raises(ConfigError, match=SETTING):
        parse_connection(text, SETTING)


@pytest.mark.parametrize(
    ("text", "hosts", "taken"),
    [
        ("AccountEndpoint=https://a.documents.azure.com/", "", True),
        ("AccountEndpoint=http://a.documents.azure.com/", "", False),
        ("AccountEndpoint=https://emulator:8081/", "emulator", False),
        ("AccountEndpoint=https://localhost:8081/", "", False),
        ("AccountEndpoint=http://127.0.0.1:8081/;AccountKey=k", "", True),
        ("AccountEndpoint=http://emulator:8081/;AccountKey=k", "emulator", True),
        ("AccountEndpoint=http://a.documents.azure.com/;AccountKey=k", "", False),
        ("AccountEndpoint=HTTP://a.documents.azure.com/;AccountKey=k", "", False),
        ("AccountEndpoint=https://emulator:8081/;AccountKey=k", "emulator", True),
    ],
)
def test_a_key_or_token_of_cosmos_goes_to_a_verified_server_or_a_named_emulator(
    text: str, hosts: str, taken: bool
) -> None:
    side = Side(
        "order", "source", "SourceOrderDb", text, container="c", database="d", emulator_hosts=frozenset([hosts])
    )
    with nullcontext() if taken else pytest.raises(ConfigError, match="SourceOrderDb__ConnectionString"):
        open_store(side, Rules(version=("Version",)), Limits())


@pytest.mark.parametrize(("role", "named"), [("target place", "--to "), ("source", "--to__ConnectionString ")])
def test_the_option_of_a_restore_is_called_as_it_is_written(role: Any, named: str) -> None:
    side = Side("customer", role, "--to", "postgresql://u:Sec@ret9@h/d")
    with pytest.raises(ConfigError, match=f"The option {named}is a URL"):
        open_store(side, Rules(version=("Version",)), Limits())


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
