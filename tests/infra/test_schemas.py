"""azure.yaml, the workflows, the workbook and the compose file against the schemas that their tools publish."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.infra.bicep import INFRA, ROOT

SCHEMAS = ROOT / "tests/infra/schemas"
# Each start of pytest reads these files, by libyaml in a tenth of the time.
COMPOSE = yaml.load((ROOT / "docker-compose.yml").read_text(), yaml.CSafeLoader)
AZD = yaml.load((ROOT / "azure.yaml").read_text(), yaml.CSafeLoader)
IDENTITY = ("NAME", "CLIENT_ID", "PRINCIPAL_ID")


def workflow(name: str) -> dict[str, Any]:
    text = (ROOT / ".github/workflows" / name).read_text()
    return dict(yaml.load(re.sub(r"^on:", '"on":', text, flags=re.M), yaml.CSafeLoader))  # YAML 1.1 reads `on` as true


def _of_extensions(_: str) -> dict[str, Any]:
    """In place of the schemas of azd's extensions, to which its own refers; nothing here is of an extension."""
    return {}


def faults(schema: str, document: Any) -> list[str]:
    rules = json.loads((SCHEMAS / schema).read_text())
    errors = jsonschema_rs.validator_for(rules, retriever=_of_extensions).iter_errors(document)
    return [f"{'/'.join(map(str, fault.instance_path))}: {fault.message[:200]}" for fault in errors]


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ("azure.yaml.json", AZD),
        ("compose-spec.json", COMPOSE),
        ("github-workflows.json", workflow("ci.yml")),
        ("github-workflows.json", workflow("azure-dev.yml")),
        ("workbook.json", json.loads((INFRA / "workbook.json").read_text())),
    ],
)
def test_a_file_is_as_its_tool_wants_it(schema: str, document: Any) -> None:
    assert faults(schema, document) == []


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ("azure.yaml.json", {**AZD, "services": {"backup": {"project": ".", "language": "python"}}}),
        ("compose-spec.json", {**COMPOSE, "services": {"x": {"imag": "y"}}}),
        ("github-workflows.json", {**workflow("ci.yml"), "jobs": {"x": {"steps": [{"runs": "y"}]}}}),
        ("workbook.json", {"version": "Notebook/1.0"}),
    ],
)
def test_a_file_with_a_mistake_is_not(schema: str, document: Any) -> None:
    assert faults(schema, document)


def test_each_step_of_the_workbook_is_as_its_schema_wants_it() -> None:
    # The published schema looks at the first step alone.
    rules = json.loads((SCHEMAS / "workbook.json").read_text())
    kinds = {3: "query", 9: "parameter", 1: "markdown"}
    for item in json.loads((INFRA / "workbook.json").read_text())["items"]:
        schema = {**rules, "$id": "urn:step", "$ref": f"#/definitions/{kinds[item['type']]}"}
        step = {key: value for key, value in schema.items() if key not in ("type", "required", "properties", "$id")}
        definitions = json.loads(re.sub(r'"\$id": "[^"]*",?', "", json.dumps(step)))
        assert not list(jsonschema_rs.validator_for(definitions).iter_errors(item)), item["name"]


def test_the_workflow_has_the_variables_that_azd_hands_to_it_and_the_template_takes() -> None:
    handed = set(AZD["pipeline"]["variables"])
    environment = workflow("azure-dev.yml")["env"]
    assert environment == {name: f"${{{{ vars.{name} }}}}" for name in environment}
    assert {name for name in environment if not name.startswith("AZURE_")} == handed
    parameters = json.loads((INFRA / "main.parameters.json").read_text())["parameters"]
    taken = {parameter["value"].strip("${}").partition("=")[0] for parameter in parameters.values()}
    assert {name for name in taken if not name.startswith("AZURE_")} == handed
    assert taken - handed - environment.keys() == {"AZURE_PRINCIPAL_ID", "AZURE_PRINCIPAL_TYPE"}  # which azd knows


def test_only_jobs_that_log_in_to_azure_get_a_token_and_none_has_a_secret() -> None:
    text = (ROOT / ".github/workflows/azure-dev.yml").read_text()
    assert "secrets." not in text
    jobs = workflow("azure-dev.yml")["jobs"]
    with_token = {name for name, job in jobs.items() if job.get("permissions", {}).get("id-token") == "write"}
    assert (
        with_token
        == {name for name, job in jobs.items() if "azd auth login" in json.dumps(job)}
        == {"what-if", "deploy"}
    )
    assert jobs["deploy"]["needs"] == ["infra", "image", "test"]
    assert jobs["image"]["needs"] == "test", "an image that has failed its tests is not published"
    assert jobs["image"]["if"] == "${{ !failure() && !cancelled() }}", "without a tag there are no tests to wait for"


def test_the_hooks_exist_for_both_kinds_of_shell_and_do_the_same() -> None:
    hooks = AZD["hooks"]["postprovision"]
    texts = {kind: (ROOT / hook["run"]).read_text() for kind, hook in hooks.items()}
    assert set(texts) == {"posix", "windows"}
    outputs = set(re.findall(r"^output (\w+) ", (INFRA / "main.bicep").read_text(), re.M))
    for text in texts.values():
        assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) >= {"--to", "--client-id", "--object-id", "--print"}
        assert set(re.findall(r"SERVICE_\w+|S(?:QL|ource)\w+", text.replace("SQL databases", ""))) - {"SQL"} <= outputs
    steps = [re.findall(r"^(?:Run the|  - |Commands of).*$", text, re.M) for text in texts.values()]
    assert len(steps[0]) == 4
    assert steps[0] == steps[1]
    page = (ROOT / "docs/azure.md").read_text()
    assert "### From your own machine\n" in page
    assert "az lock delete --name backup" in page, "with its lock a server keeps the rule that admits somebody"
    assert "$PSNativeCommandUseErrorActionPreference = $false" in texts["windows"], "or a grant that fails ends it"
    assert subprocess.run(["sh", "-n", str(ROOT / hooks["posix"]["run"])], check=False).returncode == 0


def test_the_container_runs_as_no_root_and_listens_where_compose_asks() -> None:
    dockerfile = (INFRA / "Dockerfile").read_text()
    app = COMPOSE["services"]["functions"]
    assert app["build"]["dockerfile"] == "infra/Dockerfile"
    user = re.findall(r"^USER (\S+)$", dockerfile, re.M)[-1]
    assert user.isdecimal()
    assert int(user) > 0
    [port] = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.M)
    assert app["ports"] == [f"127.0.0.1:7071:{port}"]
    assert f"127.0.0.1:{port}/" in " ".join(app["healthcheck"]["test"])


@pytest.mark.parametrize(("works", "calls"), [("*", 1), ("*--print", 2), ("nothing", 2)])
def test_the_hook_grants_and_where_it_reaches_no_server_prints_the_statements(
    works: str, calls: int, tmp_path: Path
) -> None:
    hook = tmp_path / "infra/hooks/postprovision.sh"
    program = tmp_path / ".venv/bin/python"
    for path in (hook, program):
        path.parent.mkdir(parents=True)
    hook.write_text((INFRA / "hooks/postprovision.sh").read_text())
    program.write_text(f'#!/bin/sh\necho "called: $*"\ncase "$*" in {works}) ;; *) exit 1 ;; esac\n')
    program.chmod(0o755)
    outputs = {"SQL_SOURCE": "Server=x", **{f"SERVICE_BACKUP_IDENTITY_{part}": part for part in IDENTITY}}
    # It never ends with an error, or `azd up` would stop before it publishes the app.
    ran = subprocess.run(["sh", str(hook)], env={**os.environ, **outputs}, capture_output=True, text=True, check=True)
    called = [line for line in ran.stdout.splitlines() if line.startswith("called: ")]
    granted = "called: -m backup grant --to NAME --client-id CLIENT_ID --object-id PRINCIPAL_ID"
    assert called == [granted, f"{granted} --print"][:calls]
    assert ("could not be granted" in ran.stdout) == (calls == 2)
    assert ("docs/security.md" in ran.stdout) == (works == "nothing")
