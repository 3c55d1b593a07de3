#!/bin/sh
# After `azd provision`: grants the app's identity its rights in SQL databases, for which Azure has no resource.
# It tries `backup grant`. Where that cannot reach a server, it prints the T-SQL and says where to run it.
# azd hands the outputs of infra/main.bicep over as environment variables; by hand: azd hooks run postprovision
set -eu
cd "$(dirname "$0")/../.."

if [ -z "${SourceCustomerDb__ConnectionString:-}${SQL_SOURCE:-}${SQL_BACKUP:-}" ]; then
  echo "No SQL database: nothing to grant."
  exit 0
fi

python=.venv/bin/python
if [ ! -x "$python" ]; then
  echo "The app's packages are not installed here. Run:  make setup  and then:  azd hooks run postprovision"
  exit 0
fi

grant() {
  "$python" -m backup grant --to "$SERVICE_BACKUP_IDENTITY_NAME" --client-id "$SERVICE_BACKUP_IDENTITY_CLIENT_ID" \
    --object-id "$SERVICE_BACKUP_IDENTITY_PRINCIPAL_ID" "$@"
}

# One try: what cannot be reached from here is not reached a minute later.
export BackupRetry__MaxAttempts=1
if grant; then
  exit 0
fi

cat <<'TEXT'

The rights in the SQL databases could not be granted from here. The app is made, and cannot read them yet.
Run the statements below as the Entra administrator of each server:
  - from a machine in the app's virtual network, or in a connected one;
  - or from this machine, which the server admits for a minute: docs/azure.md, "From your own machine".
Commands of az are for accounts of Cosmos DB that the deployment knows by a connection string alone.

TEXT
grant --print || echo "docs/security.md has the statements, with APP for $SERVICE_BACKUP_IDENTITY_NAME."
