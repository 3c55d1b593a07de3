"""dlt from PyPI: its source for SQL databases, read as Arrow tables, merged by key with a cursor on ModifiedAt."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import OTHERS, Contender
from benchmarks.data import COLUMNS
from benchmarks.jobs import EngineName, Job, OwnMeasures, Place, Work

_SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "SCHEMA__NAMING": "direct",  # or Id becomes id
    # With rows from Arrow, several megabytes at a time.
    "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
    "LOAD__DELETE_COMPLETED_JOBS": "true",
}
_READ_AT_ONCE = 100_000
_DRIVER = "ODBC Driver 18 for SQL Server"


class Dlt(Contender):
    """It has its own interpreter, because it installs much. Has every option that made it faster here."""

    name = "dlt"
    exact = False

    def cannot(self, engine: EngineName, workload: str) -> str | None:
        if engine == "cosmos":
            return "has no destination for Cosmos DB"
        if not self.interpreter().exists():
            return "not installed: `make bench` does"
        if workload == "deleted":
            return "does not see deletes unless it copies everything again"
        return None

    def interpreter(self) -> Path:
        return OTHERS / "bin" / "python"

    def prepare(self, job: Job) -> Work:
        os.environ.update(_SETTINGS)
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        dlt: Any = importlib.import_module("dlt")
        sources: Any = importlib.import_module("dlt.sources.sql_database")
        place = job.place
        if place.engine == "sqlserver":
            _name_driver(Path(place.folder))
        schema, _, table = place.source_table.rpartition(".")
        # A pipeline keeps its cursor in the folder; a copy over an older copy begins anew.
        pipeline = dlt.pipeline(
            "bench",
            pipelines_dir=str(Path(place.folder) / "dlt"),
            destination=_destination(place),
            dataset_name=place.backup_table.rpartition(".")[0] or "main",
        )
        incremental = dlt.sources.incremental("ModifiedAt")
        disposition: Any = (
            "replace" if job.task != "sync" else {"disposition": "merge", "strategy": _MERGES[place.engine]}
        )

        def work() -> OwnMeasures | None:
            source = sources.sql_table(
                _url(place.source, place.engine),
                table=table,
                schema=schema or None,
                backend="pyarrow",
                chunk_size=_READ_AT_ONCE,
                incremental=incremental,
                primary_key="Id",
                write_disposition=disposition,
            )
            source.apply_hints(columns={column.name: {"nullable": column.nullable} for column in COLUMNS})
            refresh = {"refresh": "drop_resources"} if job.task == "force" else {}
            pipeline.run(source, **_FILES[place.engine], **refresh).raise_on_failed_jobs()
            return None

        return work


# Parquet goes in through ADBC. PostgreSQL's csv is as fast, but makes empty texts NULL.
_FILES: dict[EngineName, dict[str, str]] = {
    "sqlite": {"loader_file_format": "parquet"},
    "postgresql": {"loader_file_format": "parquet"},
    "sqlserver": {"loader_file_format": "insert_values"},
}

_MERGES: dict[EngineName, str] = {"sqlite": "delete-insert", "postgresql": "upsert", "sqlserver": "upsert"}
"""`upsert` if the destination has it."""


def _destination(place: Place) -> Any:
    destinations: Any = importlib.import_module("dlt.destinations")
    url = _url(place.backup, place.engine)
    if place.engine == "sqlite":
        return destinations.sqlalchemy(url)
    if place.engine == "postgresql":
        return destinations.postgres(url)
    return destinations.mssql(url)


def _url(text: str, engine: EngineName) -> str:
    if engine == "postgresql":
        return text.replace("postgresql+psycopg:", "postgresql:")
    if engine != "sqlserver":
        return text
    pairs = dict(_pair(pair) for pair in text.split(";") if pair.strip())
    server = str(pairs["server"]).replace(",", ":")
    return (
        f"mssql+pyodbc://{pairs['user id']}:{pairs['password']}@{server}/{pairs['database']}"
        f"?TrustServerCertificate=yes&Encrypt={pairs.get('encrypt', 'yes')}&driver={_DRIVER.replace(' ', '+')}"
    )


def _name_driver(folder: Path) -> None:
    """Gives the ODBC driver of the package mssql-python-odbc the name that dlt looks for."""
    package: Any = importlib.import_module("mssql_python_odbc")
    [driver, *_] = sorted(Path(package.get_libs_dir()).glob("linux/debian_ubuntu/*/lib/libmsodbcsql*.so.*"))
    (folder / "odbcinst.ini").write_text(f"[{_DRIVER}]\nDriver={driver}\n")
    os.environ["ODBCSYSINI"] = str(folder)


def _pair(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return {"uid": "user id", "pwd": "password"}.get(name.strip().lower(), name.strip().lower()), value.strip()
