// The whole deployment: the app, its storage account, its network, the backup's servers, rights, alerts.
// `azd up` asks for what has no default; docs/azure.md says what each parameter means. Plain resources, no registry.
targetScope = 'subscription'

@minLength(1)
@maxLength(40)
@description('The name of the azd environment. The resource group and all names are made of it.')
param environmentName string

@description('The region of everything that is made here. It must have Flex Consumption.')
@metadata({ azd: { type: 'location' } })
param location string

@description('The object id of who deploys, and what it is. azd fills them in.')
param principalId string
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

@description('The Entra administrator of the SQL server that is made here, best a group; empty for who deploys.')
param sqlAdministratorId string = ''
@allowed(['User', 'Group', 'ServicePrincipal'])
param sqlAdministratorType string = 'Group'

@description('The resource id of the Azure SQL database to back up; empty for none, or for a connection string.')
param sourceSqlDatabaseId string = ''

@description('A connection string without a secret, or a Key Vault reference, where the source is no Azure SQL database.')
param sourceSqlConnection string = ''

@description('The table of the service customer, and what tells that a row has changed.')
param sourceSqlTable string = 'customer.Customers'
param sourceSqlVersion string = 'Version'

@description('The resource id of the Cosmos DB account to back up; empty for none, or for a connection string.')
param sourceCosmosId string = ''

@description('AccountEndpoint=… without a key, or a Key Vault reference, where the account is not of this tenant.')
param sourceCosmosConnection string = ''
param sourceCosmosDatabase string = 'OrderDb'
param sourceCosmosContainer string = 'orders'

@description('The partition key of the container of orders. The backup needs the same; it can never be changed.')
param orderPartitionKey string = '/customerId'

@description('Whether to make the backup side, of each kind that has a source. Else name it by its connection string.')
param createBackup bool = true
param backupSqlConnection string = ''
param backupCosmosConnection string = ''

@minValue(1)
@maxValue(1024)
@description('The most that the backup on SQL may hold. Azure charges for it, not for what is in it.')
param sqlMaxGb int = 32

@minValue(0)
@maxValue(100000)
@description('The most request units a second that the containers of the backup share, by autoscale: 1000, 2000, 3000 and so on. 0 for serverless. An account cannot change from one to the other.')
param cosmosAutoscaleThroughput int = 0

@description('Whether services come from backup.toml beside host.json, instead of customer and order.')
param useBackupFile bool = false

@description('true: private endpoints. false: service endpoints and virtual-network rules, which cost nothing.')
param vnetEnabled bool = true

@description('The addresses of the network that is made, /25 or more. Networks that are peered may not share any.')
param networkPrefix string = '10.0.0.0/16'

@description('A vault whose secrets the settings name as references; empty for none.')
param keyVaultId string = ''

@minLength(3)
@description('Who gets the alerts.')
param alertEmail string

@description('When the scheduled run is due: six fields, seconds first, by the clock of the time zone.')
param cronExpression string = '0 0 0 * * *'
param timeZone string = 'UTC'

@minValue(1)
@maxValue(47)
@description('After how many hours without a success a service is overdue. A query of an alert looks back two days.')
param maxAgeHours int = 26

@description('Whether locks keep the backup from being deleted. `azd down` ends at them.')
param deleteLocks bool = true

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }
var hasSql = !empty(sourceSqlDatabaseId) || !empty(sourceSqlConnection)
var hasCosmos = !empty(sourceCosmosId) || !empty(sourceCosmosConnection)
var makesSql = createBackup && hasSql
var makesCosmos = createBackup && hasCosmos

// /subscriptions/2/resourceGroups/4/providers/Microsoft.Sql/servers/8/databases/10. What has no id gets names of nothing
// in this deployment's own group, for Azure may look at a module's scope even where its condition is false.
var nothing = '/subscriptions/${subscription().subscriptionId}/resourceGroups/rg-${environmentName}/providers/none/none/none/none/none'
var sqlParts = split(empty(sourceSqlDatabaseId) ? nothing : sourceSqlDatabaseId, '/')
var cosmosParts = split(empty(sourceCosmosId) ? nothing : sourceCosmosId, '/')
var vaultParts = split(empty(keyVaultId) ? nothing : keyVaultId, '/')
var sqlServerId = join(take(sqlParts, 9), '/')

var sourceSql = empty(sourceSqlDatabaseId) ? sourceSqlConnection : 'Server=${sqlParts[8]}${environment().suffixes.sqlServerHostname};Database=${sqlParts[10]}'
var sourceCosmos = empty(sourceCosmosId) ? sourceCosmosConnection : 'AccountEndpoint=https://${cosmosParts[8]}.documents.azure.com:443/'
var backupSqlServer = 'sql-${token}'
var backupCosmosAccount = 'cosmos-${token}'
var backupSqlDatabase = 'CustomerDb_Backup'
var backupCosmosDatabase = 'OrderDb_Backup'
var backupSql = makesSql ? 'Server=${backupSqlServer}${environment().suffixes.sqlServerHostname};Database=${backupSqlDatabase}' : backupSqlConnection
var backupCosmos = makesCosmos ? 'AccountEndpoint=https://${backupCosmosAccount}.documents.azure.com:443/' : backupCosmosConnection

// The settings of the two services that the app knows by itself.
var customerSettings = {
  SourceCustomerDb__ConnectionString: sourceSql
  SourceCustomerDb__Table: sourceSqlTable
  SourceCustomerDb__Version: sourceSqlVersion
  BackupCustomerDb__ConnectionString: backupSql
  BackupCustomerDb__Table: sourceSqlTable
}
var orderSettings = {
  SourceOrderDb__ConnectionString: sourceCosmos
  SourceOrderDb__DatabaseName: sourceCosmosDatabase
  SourceOrderDb__ContainerName: sourceCosmosContainer
  BackupOrderDb__ConnectionString: backupCosmos
  BackupOrderDb__DatabaseName: backupCosmosDatabase
  BackupOrderDb__ContainerName: sourceCosmosContainer
}
// What backup.toml may name as ${SQL_SOURCE} and so on.
var fileSettings = {
  SQL_SOURCE: sourceSql
  SQL_BACKUP: backupSql
  COSMOS_SOURCE: sourceCosmos
  COSMOS_BACKUP: backupCosmos
}
var serviceSettings = useBackupFile ? fileSettings : union(hasSql ? customerSettings : {}, hasCosmos ? orderSettings : {})
var scheduleSettings = {
  BackupSchedule__CronExpression: cronExpression
  BackupSchedule__TimeZone: timeZone
  BackupSync__MaxAgeHours: string(maxAgeHours)
}

resource group 'Microsoft.Resources/resourceGroups@2024-11-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'app/identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-backup-${token}'
    location: location
    tags: tags
  }
}

module network 'app/network.bicep' = {
  name: 'network'
  scope: group
  params: {
    name: 'vnet-${token}'
    location: location
    tags: tags
    prefix: networkPrefix
    isPrivate: vnetEnabled
  }
}

module watch 'app/watch.bicep' = {
  name: 'watch'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    alertEmail: alertEmail
    maxAgeHours: maxAgeHours
    publisherPrincipalId: identity.outputs.principalId
  }
}

module storage 'app/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${token}'
    location: location
    tags: tags
    principalId: identity.outputs.principalId
    isPrivate: vnetEnabled
    appSubnetId: network.outputs.appSubnetId
    endpointSubnetId: network.outputs.endpointSubnetId
    networkName: network.outputs.name
  }
}

module sql 'app/sql.bicep' = if (makesSql) {
  name: 'sql'
  scope: group
  params: {
    serverName: backupSqlServer
    databaseName: backupSqlDatabase
    maxGb: sqlMaxGb
    location: location
    tags: tags
    administratorId: empty(sqlAdministratorId) ? principalId : sqlAdministratorId
    administratorType: empty(sqlAdministratorId) ? principalType : sqlAdministratorType
    isPrivate: vnetEnabled
    appSubnetId: network.outputs.appSubnetId
    deleteLock: deleteLocks
  }
}

module cosmos 'app/cosmos.bicep' = if (makesCosmos) {
  name: 'cosmos'
  scope: group
  params: {
    accountName: backupCosmosAccount
    databaseName: backupCosmosDatabase
    containerName: sourceCosmosContainer
    partitionKey: orderPartitionKey
    autoscaleThroughput: cosmosAutoscaleThroughput
    location: location
    tags: tags
    principalId: identity.outputs.principalId
    isPrivate: vnetEnabled
    appSubnetId: network.outputs.appSubnetId
    deleteLock: deleteLocks
  }
}

// The source's side: reading, and the way there. Nothing else is changed there.
module sourceSqlRule 'app/source-sql.bicep' = if (!empty(sourceSqlDatabaseId) && !vnetEnabled) {
  name: 'source-sql'
  scope: resourceGroup(sqlParts[2], sqlParts[4])
  params: {
    serverName: sqlParts[8]
    appSubnetId: network.outputs.appSubnetId
    ruleName: 'backup-${token}'
  }
}

module sourceCosmosReader 'app/source-cosmos.bicep' = if (!empty(sourceCosmosId)) {
  name: 'source-cosmos'
  scope: resourceGroup(cosmosParts[2], cosmosParts[4])
  params: {
    accountName: cosmosParts[8]
    principalId: identity.outputs.principalId
  }
}

module vaultReader 'app/vault.bicep' = if (!empty(keyVaultId)) {
  name: 'vault'
  scope: resourceGroup(vaultParts[2], vaultParts[4])
  params: {
    vaultName: vaultParts[8]
    principalId: identity.outputs.principalId
  }
}

module sqlZone 'app/dns-zone.bicep' = if (vnetEnabled && hasSql) {
  name: 'dns-sql'
  scope: group
  params: {
    zoneName: 'privatelink${environment().suffixes.sqlServerHostname}'
    networkName: network.outputs.name
    tags: tags
  }
}

module cosmosZone 'app/dns-zone.bicep' = if (vnetEnabled && hasCosmos) {
  name: 'dns-cosmos'
  scope: group
  params: {
    zoneName: 'privatelink.documents.azure.com'
    networkName: network.outputs.name
    tags: tags
  }
}

module sqlEndpoint 'app/private-endpoint.bicep' = if (vnetEnabled && makesSql) {
  name: 'endpoint-sql-backup'
  scope: group
  params: {
    name: 'pe-sql-backup-${token}'
    location: location
    tags: tags
    subnetId: network.outputs.endpointSubnetId
    resourceId: makesSql ? sql!.outputs.serverId : ''
    groupId: 'sqlServer'
    zoneId: vnetEnabled && hasSql ? sqlZone!.outputs.id : ''
  }
}

module cosmosEndpoint 'app/private-endpoint.bicep' = if (vnetEnabled && makesCosmos) {
  name: 'endpoint-cosmos-backup'
  scope: group
  params: {
    name: 'pe-cosmos-backup-${token}'
    location: location
    tags: tags
    subnetId: network.outputs.endpointSubnetId
    resourceId: makesCosmos ? cosmos!.outputs.accountId : ''
    groupId: 'Sql'
    zoneId: vnetEnabled && hasCosmos ? cosmosZone!.outputs.id : ''
  }
}

module sourceSqlEndpoint 'app/private-endpoint.bicep' = if (vnetEnabled && !empty(sourceSqlDatabaseId)) {
  name: 'endpoint-sql-source'
  scope: group
  params: {
    name: 'pe-sql-source-${token}'
    location: location
    tags: tags
    subnetId: network.outputs.endpointSubnetId
    resourceId: sqlServerId
    groupId: 'sqlServer'
    zoneId: vnetEnabled && hasSql ? sqlZone!.outputs.id : ''
  }
}

module sourceCosmosEndpoint 'app/private-endpoint.bicep' = if (vnetEnabled && !empty(sourceCosmosId)) {
  name: 'endpoint-cosmos-source'
  scope: group
  dependsOn: [sourceCosmosReader] // an account does one of the two at a time
  params: {
    name: 'pe-cosmos-source-${token}'
    location: location
    tags: tags
    subnetId: network.outputs.endpointSubnetId
    resourceId: sourceCosmosId
    groupId: 'Sql'
    zoneId: vnetEnabled && hasCosmos ? cosmosZone!.outputs.id : ''
  }
}

module app 'app/function.bicep' = {
  name: 'app'
  scope: group
  params: {
    name: 'func-backup-${token}'
    planName: 'plan-${token}'
    location: location
    tags: tags
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageName: storage.outputs.name
    deploymentContainer: storage.outputs.deploymentContainer
    insightsConnection: watch.outputs.insightsConnection
    subnetId: network.outputs.appSubnetId
    settings: union(serviceSettings, scheduleSettings, loadJsonContent('settings.json'))
  }
}

// azd keeps these in its environment, and gives them to the hooks: under the app's own names the settings of the
// services, so that the command line works with the same databases.
output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output SERVICE_BACKUP_NAME string = app.outputs.name
output SERVICE_BACKUP_URI string = app.outputs.uri
output SERVICE_BACKUP_IDENTITY_NAME string = identity.outputs.name
output SERVICE_BACKUP_IDENTITY_CLIENT_ID string = identity.outputs.clientId
output SERVICE_BACKUP_IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId
output SourceCustomerDb__ConnectionString string = hasSql && !useBackupFile ? sourceSql : ''
output SourceCustomerDb__Table string = hasSql && !useBackupFile ? sourceSqlTable : ''
output BackupCustomerDb__ConnectionString string = hasSql && !useBackupFile ? backupSql : ''
output BackupCustomerDb__Table string = hasSql && !useBackupFile ? sourceSqlTable : ''
output SourceOrderDb__ConnectionString string = hasCosmos && !useBackupFile ? sourceCosmos : ''
output SourceOrderDb__DatabaseName string = hasCosmos && !useBackupFile ? sourceCosmosDatabase : ''
output SourceOrderDb__ContainerName string = hasCosmos && !useBackupFile ? sourceCosmosContainer : ''
output BackupOrderDb__ConnectionString string = hasCosmos && !useBackupFile ? backupCosmos : ''
output BackupOrderDb__DatabaseName string = hasCosmos && !useBackupFile ? backupCosmosDatabase : ''
output BackupOrderDb__ContainerName string = hasCosmos && !useBackupFile ? sourceCosmosContainer : ''
output SQL_SOURCE string = useBackupFile ? sourceSql : ''
output SQL_BACKUP string = useBackupFile ? backupSql : ''
output COSMOS_SOURCE string = useBackupFile ? sourceCosmos : ''
output COSMOS_BACKUP string = useBackupFile ? backupCosmos : ''
