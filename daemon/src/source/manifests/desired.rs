//! From the folder and the running sandboxes to the objects that a cluster would have, and from two such
//! states to the events between them. Pure: the one path of start, change and rescan. Called by the shell in
//! `watch.rs` and by `load`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{ClusterIps, Event, Kind, Name, Node, Object, ObjectName, Pod, Service};
use sandbox::Record;

use super::allocate::{self, Ranges};
use super::folder::Folder;
use super::written::{Family, Written, WrittenService};
use super::{controller, defaults};
use crate::source::report::{Problem, Reason};

/// What the objects of a folder are completed with.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where cluster IPs come from: one range, or one of each family with the primary one first.
    pub service_cidrs: Vec<IpNet>,
    /// The cluster DNS IP, where it is not that of `kube-system/kube-dns` or the tenth of the range.
    pub cluster_dns: Option<IpAddr>,
    /// The own Node, unless the folder has it.
    pub node: Node,
}

/// Everything that should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    objects: BTreeMap<(Kind, ObjectName), Object>,
    /// What is wrong in the folder.
    pub(crate) problems: Vec<Problem>,
}

impl Desired {
    /// Computes everything. `before` is what was, for the addresses that services have.
    pub(crate) fn new(folder: &Folder, records: &[Record], cluster: &Cluster, before: &Self) -> Self {
        let (entries, problems) = folder.entries();
        let mut desired = Self { objects: BTreeMap::new(), problems };
        let mut services = Vec::new();
        for entry in entries {
            match entry.written {
                Written::Service(service) => services.push((entry.place, service.clone())),
                Written::Plain(object) => {
                    desired.objects.insert(entry.id, object.clone());
                }
            }
        }
        let services = desired.complete(services, cluster, before);
        desired.put_node(cluster);
        desired.put_pods(records, cluster);
        desired.put_endpoints(&services, records, cluster);
        for service in services {
            desired.put(Object::Service(service.service));
        }
        desired.put_namespaces();
        desired
    }

    /// The state as lists, one of each kind, so that every list is complete.
    pub(crate) fn lists(&self) -> Vec<Event> {
        let list = |kind| {
            let of = |(id, object): (&(Kind, ObjectName), &Object)| (id.0 == kind).then(|| object.clone());
            Event::Replace(kind, self.objects.iter().filter_map(of).collect())
        };
        Kind::ALL.into_iter().map(list).collect()
    }

    /// The changes from `before` to this. What is new comes before what is gone, so that an endpoint that
    /// moves from one slice to another is never absent.
    pub(crate) fn changes(&self, before: &Self) -> Vec<Event> {
        let changed = self.objects.iter().filter(|(id, object)| before.objects.get(*id) != Some(*object));
        let gone = before.objects.keys().filter(|id| !self.objects.contains_key(*id));
        let applied = changed.map(|(_, object)| Event::Apply(object.clone()));
        applied.chain(gone.map(|(kind, name)| Event::Delete(*kind, name.clone()))).collect()
    }

    fn put(&mut self, object: Object) {
        self.objects.insert((object.kind(), object.name()), object);
    }

    fn service(&self, name: &ObjectName) -> Option<&Service> {
        let object = self.objects.get(&(Kind::Service, name.clone()))?;
        if let Object::Service(service) = object { Some(service) } else { None }
    }

    /// The services as the API server would have stored them, ordered by name.
    fn complete(
        &mut self,
        written: Vec<(String, WrittenService)>,
        cluster: &Cluster,
        before: &Self,
    ) -> Vec<WrittenService> {
        let mut services = self.refuse_conflicts(written);
        let reserved = add_defaults(&mut services, cluster);
        services.sort_by(|a, b| a.service.name.cmp(&b.service.name));
        let ranges = Ranges { cidrs: &cluster.service_cidrs, reserved: &reserved };
        let problems = allocate::allocate(&mut services, &ranges, |name| before.service(name));
        self.problems.extend(problems);
        services
    }

    /// The API server refuses the second of two services that write down the same cluster IP or node port.
    /// The older is the first, then the one that is written first.
    fn refuse_conflicts(&mut self, mut written: Vec<(String, WrittenService)>) -> Vec<WrittenService> {
        // A folder rarely has creation times; where it has one, that service has been in a cluster.
        written.sort_by_key(|(_, service)| match service.service.created {
            0 => i64::MAX,
            created => created,
        });
        let mut owners: HashMap<Claim, ObjectName> = HashMap::new();
        let mut accepted = Vec::with_capacity(written.len());
        for (place, service) in written {
            let claims = claims(&service.service);
            let taken = claims.iter().find_map(|(claim, field)| Some((field, claim, owners.get(claim)?)));
            if let Some((field, claim, owner)) = taken {
                let name = &service.service.name;
                let text = format!("{place}, Service {name}: {field}: {claim} belongs to Service {owner}");
                self.problems.push(Problem::new(Reason::Conflict, text));
                continue;
            }
            owners.extend(claims.into_iter().map(|(claim, _)| (claim, service.service.name.clone())));
            accepted.push(service);
        }
        accepted
    }

    fn put_node(&mut self, cluster: &Cluster) {
        let id = (Kind::Node, ObjectName::cluster_scoped(cluster.node.name.clone()));
        self.objects.entry(id).or_insert_with(|| Object::Node(cluster.node.clone()));
    }

    fn own_node(&self, cluster: &Cluster) -> Node {
        let id = (Kind::Node, ObjectName::cluster_scoped(cluster.node.name.clone()));
        if let Some(Object::Node(node)) = self.objects.get(&id) { node.clone() } else { cluster.node.clone() }
    }

    /// What runs is known better than what is written.
    fn put_pods(&mut self, records: &[Record], cluster: &Cluster) {
        for record in records {
            let labels = record.labels.iter();
            self.put(Object::Pod(Pod {
                name: ObjectName::new(record.pod.namespace.as_str(), record.pod.name.as_str()),
                addresses: record.addresses.clone(),
                labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
                node: Some(cluster.node.name.clone()),
                host_network: record.host_network,
            }));
        }
    }

    fn put_endpoints(&mut self, services: &[WrittenService], records: &[Record], cluster: &Cluster) {
        let node = self.own_node(cluster);
        let mut pods: HashMap<&str, Vec<&Record>> = HashMap::new();
        for record in records {
            pods.entry(&record.pod.namespace).or_default().push(record);
        }
        for service in services.iter().filter(|service| !service.selector.is_empty()) {
            let name = &service.service.name;
            if self.objects.remove(&(Kind::Endpoints, name.clone())).is_some() {
                let text =
                    format!("Endpoints {name}: without effect, the Service of that name has a selector");
                self.problems.push(Problem::new(Reason::Shadowed, text));
            }
            let families: Vec<Family> = allocate::families(service, &cluster.service_cidrs);
            let pods = pods.get(&*name.namespace).map(Vec::as_slice).unwrap_or_default();
            for slice in controller::slices(service, &families, pods, &node) {
                self.put(Object::EndpointSlice(slice));
            }
        }
    }

    /// Namespaces that objects use exist, whether or not they are written.
    fn put_namespaces(&mut self) {
        let used = self.objects.keys().map(|(_, name)| name.namespace.clone());
        let mut names: BTreeSet<Name> = used.filter(|namespace| !namespace.is_empty()).collect();
        names.extend(["default".into(), "kube-system".into()]);
        for name in names {
            self.put(Object::Namespace(name));
        }
    }
}

/// Adds what every cluster has, gives it its well-known addresses, and returns those.
fn add_defaults(services: &mut Vec<WrittenService>, cluster: &Cluster) -> Vec<IpAddr> {
    let mut reserved: Vec<IpAddr> = cluster.service_cidrs.iter().map(defaults::kubernetes_ip).collect();
    let first = reserved.first().copied();
    put_well_known(services, defaults::kubernetes(), first);
    let tenth = cluster.service_cidrs.first().map(defaults::kube_dns_ip);
    let dns = cluster.cluster_dns.or(tenth);
    put_well_known(services, defaults::kube_dns(), dns);
    reserved.extend(dns);
    reserved
}

/// Adds `service` unless there is one of its name, and gives either the address `ip` if it has none.
fn put_well_known(services: &mut Vec<WrittenService>, service: WrittenService, ip: Option<IpAddr>) {
    let name = service.service.name.clone();
    if !services.iter().any(|written| written.service.name == name) {
        services.push(service);
    }
    let claimed =
        services.iter().any(|written| written.service.cluster_ips().iter().any(|own| Some(*own) == ip));
    let service = services.iter_mut().find(|written| written.service.name == name);
    if let (Some(service), Some(ip), false) = (service, ip, claimed)
        && service.wants_addresses()
        && service.service.cluster_ips().is_empty()
    {
        service.service.cluster_ips = ClusterIps::Addresses(vec![ip]);
    }
}

/// What only one service can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Address(IpAddr),
    NodePort(u16, &'static str),
    HealthPort(u16),
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::NodePort(port, protocol) => write!(f, "{port}/{protocol}"),
            Self::HealthPort(port) => write!(f, "{port}"),
        }
    }
}

fn claims(service: &Service) -> Vec<(Claim, String)> {
    let addresses =
        service.cluster_ips().iter().map(|ip| (Claim::Address(*ip), "spec.clusterIPs".to_owned()));
    let ports = service.ports.iter().enumerate().filter_map(|(index, port)| {
        let claim = Claim::NodePort(port.node_port?, port.protocol.as_str());
        Some((claim, format!("spec.ports[{index}].nodePort")))
    });
    let health = service.load_balancer.health_check_port;
    let health = health.map(|port| (Claim::HealthPort(port), "spec.healthCheckNodePort".to_owned()));
    addresses.chain(ports).chain(health).collect()
}
