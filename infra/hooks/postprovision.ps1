# After `azd provision`: grants the app's identity its rights in SQL databases, for which Azure has no resource.
# It tries `backup grant`. Where that cannot reach a server, it prints the T-SQL and says where to run it.
# azd hands the outputs of infra/main.bicep over as environment variables; by hand: azd hooks run postprovision
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false # or a profile that sets it would end this where a grant fails
Set-Location (Join-Path $PSScriptRoot '../..')

if (-not "$env:SourceCustomerDb__ConnectionString$env:SQL_SOURCE$env:SQL_BACKUP") {
    Write-Output 'No SQL database: nothing to grant.'
    exit 0
}

$python = '.venv/Scripts/python.exe'
if (-not (Test-Path $python)) {
    Write-Output 'The app''s packages are not installed here. Run:'
    Write-Output '  py -3 -m venv .venv'
    Write-Output '  .venv/Scripts/pip install --require-hashes -r requirements.txt'
    Write-Output '  azd hooks run postprovision'
    exit 0
}

$grant = @(
    '-m', 'backup', 'grant', '--to', $env:SERVICE_BACKUP_IDENTITY_NAME, '--client-id', $env:SERVICE_BACKUP_IDENTITY_CLIENT_ID,
    '--object-id', $env:SERVICE_BACKUP_IDENTITY_PRINCIPAL_ID
)
# One try: what cannot be reached from here is not reached a minute later.
$env:BackupRetry__MaxAttempts = '1'
& $python @grant
if ($LASTEXITCODE -eq 0) {
    exit 0
}

Write-Output @'

The rights in the SQL databases could not be granted from here. The app is made, and cannot read them yet.
Run the statements below as the Entra administrator of each server:
  - from a machine in the app's virtual network, or in a connected one;
  - or from this machine, which the server admits for a minute: docs/azure.md, "From your own machine".
Commands of az are for accounts of Cosmos DB that the deployment knows by a connection string alone.

'@
& $python @grant --print
if ($LASTEXITCODE -ne 0) {
    Write-Output "docs/security.md has the statements, with APP for $env:SERVICE_BACKUP_IDENTITY_NAME."
}
exit 0
