// A private DNS zone, which gives the addresses of private endpoints inside the network. A server that has its private
// endpoint in another network, and none here, keeps its public name: without that it would not be found at all.
param zoneName string
param networkName string
param tags object

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: networkName
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = {
  name: zoneName
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = {
  parent: zone
  name: 'link-${networkName}'
  location: 'global'
  tags: tags
  properties: {
    virtualNetwork: {
      id: network.id
    }
    registrationEnabled: false
    resolutionPolicy: 'NxDomainRedirect'
  }
}

output id string = zone.id
