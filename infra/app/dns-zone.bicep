// A private DNS zone, which gives the addresses of private endpoints inside the network.
param zoneName string
param networkName string
param tags object

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: networkName
}

resource zone 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: zoneName
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = {
  parent: zone
  name: 'link-${networkName}'
  location: 'global'
  tags: tags
  properties: {
    virtualNetwork: {
      id: network.id
    }
    registrationEnabled: false
  }
}

output id string = zone.id
