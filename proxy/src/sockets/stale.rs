//! Which sockets have lost their endpoint (R9). Pure: the terminator asks for each recorded socket, the proxy
//! whether a change makes it worth while to ask.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use model::{Member, Pod, Protocol, Snapshot};

use crate::tables::{Frontend, ServiceKey, Tables};

/// Addresses of pods that are gone which are remembered: as many as a node has pods, with room.
const REMEMBERED: usize = 4096;

/// What sockets are judged by: the cluster, and where its frontends lead.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) tables: Tables,
    /// Addresses whose pod this node has seen go; only asked if TCP connections are to be ended.
    pub(super) gone: Option<HashSet<IpAddr>>,
}

/// A picture with what was looked up in it so far.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    picture: &'a Picture,
    /// The endpoints that serve each service port, of those that were asked for.
    serving: HashMap<ServiceKey, HashSet<SocketAddr>>,
    /// Every endpoint that serves any service over UDP.
    anywhere: Option<HashSet<SocketAddr>>,
    /// Every address of any slice.
    listed: Option<HashSet<IpAddr>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(picture: &'a Picture) -> Self {
        Self { picture, serving: HashMap::new(), anywhere: None, listed: None }
    }

    /// Whether a socket that dialled `frontend` and is connected to `backend` has lost its endpoint.
    pub(super) fn is_stale(&mut self, protocol: Protocol, frontend: SocketAddr, backend: SocketAddr) -> bool {
        match protocol {
            Protocol::Udp => self.is_stale_datagram(frontend, backend),
            Protocol::Tcp => self.is_stale_stream(backend.ip()),
            Protocol::Sctp => false,
        }
    }

    /// Whether a service answers datagrams there.
    pub(super) fn is_frontend(&self, dialled: SocketAddr) -> bool {
        let frontend = Frontend::new(dialled.ip(), dialled.port(), Protocol::Udp);
        self.picture.tables.frontends.contains_key(&frontend)
    }

    /// A service without any serving endpoint is left alone (R9). A frontend that is gone leaves its sockets to
    /// whoever else their endpoint serves.
    fn is_stale_datagram(&mut self, frontend: SocketAddr, backend: SocketAddr) -> bool {
        let picture = self.picture;
        let frontend = Frontend::new(frontend.ip(), frontend.port(), Protocol::Udp);
        match picture.tables.frontends.get(&frontend).and_then(|target| target.service()) {
            Some(key) => {
                let serving =
                    self.serving.entry(key.clone()).or_insert_with(|| serving(&picture.snapshot, key));
                !serving.is_empty() && !serving.contains(&backend)
            }
            None => {
                let anywhere = self.anywhere.get_or_insert_with(|| serving_anywhere(&picture.snapshot));
                !anywhere.contains(&backend)
            }
        }
    }

    /// An address also leaves the slices when a label changes, and such connections live on: its pod must be
    /// known to be gone.
    fn is_stale_stream(&mut self, backend: IpAddr) -> bool {
        let picture = self.picture;
        picture.gone.as_ref().is_some_and(|gone| gone.contains(&backend))
            && !self.listed.get_or_insert_with(|| listed(&picture.snapshot)).contains(&backend)
    }
}

/// The addresses of pods that went, the latest ones; an address that a pod has again is not gone.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<IpAddr>);

impl Gone {
    /// Takes over what changed between two snapshots. Whether an address went.
    pub(super) fn follow(&mut self, old: &Snapshot, new: &Snapshot) -> bool {
        let (mut left, mut came) = (Vec::new(), Vec::new());
        for item in old.pods.diff(&new.pods) {
            match item {
                DiffItem::Add(_, pod) => came.push(pod),
                DiffItem::Remove(_, pod) => left.push(pod),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    left.push(old);
                    came.push(new);
                }
            }
        }
        let addresses = |pod: &Arc<Pod>| if pod.host_network { Vec::new() } else { pod.addresses.clone() };
        let came: HashSet<IpAddr> = came.into_iter().flat_map(addresses).collect();
        let left = left.into_iter().flat_map(addresses).filter(|ip| !came.contains(ip));
        let before = self.0.len();
        self.0.extend(left);
        let went = self.0.len() > before;
        self.0.retain(|ip| !came.contains(ip));
        while self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
        went
    }

    pub(super) fn addresses(&self) -> HashSet<IpAddr> {
        self.0.iter().copied().collect()
    }
}

/// Whether a change between two snapshots may leave a UDP socket without its endpoint.
pub(super) fn concerns_datagrams(old: &Snapshot, new: &Snapshot) -> bool {
    let has_datagrams = |member: &Arc<Member>| {
        let mut ports = member.service.ports.iter();
        ports.any(|port| port.protocol == Protocol::Udp)
    };
    // What is new has left nobody behind.
    new.changed_since(old).filter_map(|changed| changed.old).any(has_datagrams)
}

fn serving(snapshot: &Snapshot, key: &ServiceKey) -> HashSet<SocketAddr> {
    let Some(member) = snapshot.services.get(&key.name) else { return HashSet::new() };
    let mut ports = member.service.ports.iter();
    let port = ports.find(|port| port.name == key.port && port.protocol == key.protocol);
    let endpoints = port.map(|port| member.endpoints(port, "")).unwrap_or_default();
    let serving = endpoints.iter().filter(|found| found.conditions.ready || found.conditions.serving);
    serving.map(|found| SocketAddr::new(found.address, found.port)).collect()
}

fn serving_anywhere(snapshot: &Snapshot) -> HashSet<SocketAddr> {
    let mut found = HashSet::new();
    for slice in snapshot.services.values().flat_map(|member| &member.slices) {
        let serving = slice.endpoints.iter().filter(|e| e.conditions.ready || e.conditions.serving);
        for port in slice.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            found.extend(serving.clone().map(|endpoint| SocketAddr::new(endpoint.address, port.port)));
        }
    }
    found
}

fn listed(snapshot: &Snapshot) -> HashSet<IpAddr> {
    snapshot.services.values().flat_map(|member| member.all_endpoints()).map(|found| found.address).collect()
}

#[cfg(test)]
mod tests {
    use model::testing::{endpoint, ip, listed, name, service, slice};
    use model::{Cluster, Event, Kind, Object};

    use super::*;
    use crate::plan::{Facts, Planner};

    const VIP: &str = "10.96.0.5:53";

    fn picture(cluster: &mut Cluster, gone: Option<&[&str]>) -> Picture {
        let snapshot = cluster.snapshot();
        let facts = Facts {
            name: "a".into(),
            zone: None,
            addresses: Vec::new(),
            node_port_addresses: Vec::new(),
            cluster_dns: Vec::new(),
        };
        let tables = Planner::new(facts.clone()).update(&snapshot, &facts).clone();
        let gone = gone.map(|gone| gone.iter().map(|text| ip(text)).collect());
        Picture { snapshot, tables, gone }
    }

    fn dns(endpoints: Vec<model::Endpoint>) -> Vec<Object> {
        let slice = slice("s", "x/dns").port("53/UDP").port("53/TCP");
        let slice = endpoints.into_iter().fold(slice, model::EndpointSlice::with);
        vec![service("x/dns", &["10.96.0.5"]).port("53/UDP").port("53/TCP").into(), slice.into()]
    }

    #[track_caller]
    fn check(picture: &Picture, protocol: Protocol, backend: &str, expected: bool) {
        let (vip, backend) = (VIP.parse().unwrap(), backend.parse().unwrap());
        assert_eq!(Judge::new(picture).is_stale(protocol, vip, backend), expected, "{backend}");
    }

    #[test]
    fn datagrams_to_an_endpoint_that_no_longer_serves_are_stale() {
        let endpoints = vec![
            endpoint("10.244.0.2"),
            endpoint("10.244.0.3").terminating(true),
            endpoint("10.244.0.4").terminating(false),
        ];
        let picture = picture(&mut listed(dns(endpoints)), None);
        check(&picture, Protocol::Udp, "10.244.0.2:53", false);
        check(&picture, Protocol::Udp, "10.244.0.3:53", false);
        check(&picture, Protocol::Udp, "10.244.0.4:53", true);
        check(&picture, Protocol::Udp, "10.244.0.9:53", true);
        check(&picture, Protocol::Udp, "10.244.0.2:54", true);
        check(&picture, Protocol::Tcp, "10.244.0.9:53", false);
    }

    #[test]
    fn a_service_without_a_serving_endpoint_is_left_alone() {
        let mut cluster = listed(dns(vec![endpoint("10.244.0.4").terminating(false)]));
        check(&picture(&mut cluster, None), Protocol::Udp, "10.244.0.2:53", false);
    }

    #[test]
    fn without_the_service_only_an_endpoint_of_another_one_lives_on() {
        let mut cluster = listed(dns(vec![endpoint("10.244.0.2")]));
        cluster.apply(Event::Delete(Kind::Service, name("x/dns")));
        check(&picture(&mut cluster, None), Protocol::Udp, "10.244.0.2:53", true);
        let other = slice("t", "x/other").port("53/UDP").ready(&["10.244.0.2"]);
        cluster.apply(Event::Apply(service("x/other", &["10.96.0.6"]).port("53/UDP").into()));
        cluster.apply(Event::Apply(other.into()));
        check(&picture(&mut cluster, None), Protocol::Udp, "10.244.0.2:53", false);
    }

    #[test]
    fn streams_end_only_with_a_pod_that_is_known_to_be_gone_and_in_no_slice() {
        let mut cluster = listed(dns(vec![endpoint("10.244.0.2").terminating(false)]));
        check(&picture(&mut cluster, None), Protocol::Tcp, "10.244.0.9:53", false);
        let picture = picture(&mut cluster, Some(&["10.244.0.9", "10.244.0.2"]));
        check(&picture, Protocol::Tcp, "10.244.0.9:53", true);
        check(&picture, Protocol::Tcp, "10.244.0.2:53", false);
        check(&picture, Protocol::Tcp, "10.244.0.3:53", false);
    }

    #[test]
    fn an_address_that_another_pod_has_is_not_gone() {
        let pod = |name: &str, address: &str| {
            Object::Pod(Pod {
                name: model::testing::name(name),
                addresses: vec![ip(address)],
                labels: std::collections::BTreeMap::new(),
                node: Some("a".into()),
                host_network: false,
            })
        };
        let mut cluster = listed([pod("x/a", "10.244.0.2"), pod("x/b", "10.244.0.3")]);
        let mut gone = Gone::default();
        let before = cluster.snapshot();
        cluster.apply(Event::Delete(Kind::Pod, name("x/a")));
        let after = cluster.snapshot();
        assert!(gone.follow(&before, &after));
        assert_eq!(gone.addresses(), HashSet::from([ip("10.244.0.2")]));
        cluster.apply(Event::Apply(pod("x/c", "10.244.0.2")));
        assert!(!gone.follow(&after, &cluster.snapshot()));
        assert_eq!(gone.addresses(), HashSet::new());
    }
}
