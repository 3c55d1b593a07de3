// What sees that the backup fails or falls silent: logs, alert rules on them, a mail, and a workbook.
param token string
param location string
param tags object
param alertEmail string
param maxAgeHours int
param publisherPrincipalId string

var metricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'log-${token}'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: 90
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-${token}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
    DisableLocalAuth: true
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, publisherPrincipalId, metricsPublisher)
  scope: insights
  properties: {
    principalId: publisherPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', metricsPublisher)
  }
}

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-backup-${token}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'backup'
    enabled: true
    emailReceivers: [
      {
        name: 'mail'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

// A rule that looks for lines, and fires when there is one: for each value of the column `of` by itself, if it has one.
var linesThatAlert = [
  {
    name: 'failed-run'
    title: 'Backup: a run failed'
    severity: 1
    query: loadTextContent('../queries/failed-run.kql')
    of: 'Entry'
  }
  {
    name: 'overdue'
    title: 'Backup: a service is overdue'
    severity: 1
    query: loadTextContent('../queries/overdue.kql')
    of: 'Entry'
  }
  {
    name: 'guard'
    title: 'Backup: the guard stopped a run'
    severity: 1
    query: loadTextContent('../queries/guard.kql')
    of: 'Entry'
  }
  {
    name: 'poison'
    title: 'Backup: a message of the queue was given up'
    severity: 2
    query: loadTextContent('../queries/poison.kql')
    of: ''
  }
  {
    name: 'differences'
    title: 'Backup: source and backup differ'
    severity: 0
    query: loadTextContent('../queries/differences.kql')
    of: 'Entry'
  }
]

// A rule that counts signs of life, and fires when there is none.
var signsOfLife = [
  {
    name: 'silence'
    title: 'Backup: no sync has succeeded within the allowed age'
    query: replace(loadTextContent('../queries/silence.kql'), 'ago(26h)', 'ago(${maxAgeHours}h)')
    measure: 'Successes'
    window: 'P2D'
    every: 'PT1H'
  }
  {
    name: 'not-running'
    title: 'Backup: the app does not run'
    query: loadTextContent('../queries/not-running.kql')
    measure: 'Looks'
    window: 'PT1H'
    every: 'PT15M'
  }
]

resource lineRules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for rule in linesThatAlert: {
  name: 'backup-${rule.name}-${token}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: rule.title
    description: 'docs/alerts.md says what to do.'
    enabled: true
    severity: rule.severity
    scopes: [logs.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT10M'
    autoMitigate: false
    muteActionsDuration: 'PT1H'
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: rule.query
          timeAggregation: 'Count'
          dimensions: empty(rule.of) ? [] : [
            {
              name: rule.of
              operator: 'Include'
              values: ['*']
            }
          ]
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: {
      actionGroups: [people.id]
    }
  }
}]

resource lifeRules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for rule in signsOfLife: {
  name: 'backup-${rule.name}-${token}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: rule.title
    description: 'docs/alerts.md says what to do.'
    enabled: true
    severity: 0
    scopes: [logs.id]
    evaluationFrequency: rule.every
    windowSize: rule.window
    autoMitigate: true
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: rule.query
          timeAggregation: 'Total'
          metricMeasureColumn: rule.measure
          operator: 'LessThan'
          threshold: 1
        }
      ]
    }
    actions: {
      actionGroups: [people.id]
    }
  }
}]

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(logs.id, 'backup')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Backup'
    category: 'workbook'
    sourceId: logs.id
    serializedData: loadTextContent('../workbook.json')
  }
}

output insightsConnection string = insights.properties.ConnectionString
